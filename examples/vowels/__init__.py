"""Parts of the Japanese Vowels demo: the gradient check and the picture."""
