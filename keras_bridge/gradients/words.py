"""What the custom-gradient calls of all backends say."""

FIRST_ONLY = 'the engines "fast" and "reference" have first derivatives only; engine="keras" has further ones'
