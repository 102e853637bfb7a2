"""A recurrent highway network as a language model of characters, on the opening of Alice in Wonderland (1865)."""

import keras
import numpy as np
from keras import Input, layers

from keras_bridge import RecurrentSequential, RHNCell

TEXT = """
alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or
twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, and what
is the use of a book, thought alice, without pictures or conversation? so she was considering in her own mind, as
well as she could, for the hot day made her feel very sleepy and stupid, whether the pleasure of making a daisy-
chain would be worth the trouble of getting up and picking the daisies, when suddenly a white rabbit with pink eyes
ran close by her. there was nothing so very remarkable in that; nor did alice think it so very much out of the way
to hear the rabbit say to itself, oh dear! oh dear! i shall be late! when she thought it over afterwards, it
occurred to her that she ought to have wondered at this, but at the time it all seemed quite natural; but when the
rabbit actually took a watch out of its waistcoat-pocket, and looked at it, and then hurried on, alice started to
her feet, for it flashed across her mind that she had never before seen a rabbit with either a waistcoat-pocket, or
a watch to take out of it, and burning with curiosity, she ran across the field after it, and fortunately was just
in time to see it pop down a large rabbit-hole under the hedge. in another moment down went alice after it, never
once considering how in the world she was to get out again. the rabbit-hole went straight on like a tunnel for some
way, and then dipped suddenly down, so suddenly that alice had not a moment to think about stopping herself before
she found herself falling down a very deep well.
""".replace("\n", " ").strip()
STEPS = 40


def main(epochs=7):
    keras.utils.set_random_seed(0)
    alphabet = sorted(set(TEXT))
    codes = np.array([alphabet.index(c) for c in TEXT])
    cut = int(0.9 * len(codes))

    def windows(part, stride):
        starts = range(0, len(part) - STEPS, stride)
        return np.stack([part[s : s + STEPS] for s in starts]), np.stack([part[s + 1 : s + STEPS + 1] for s in starts])

    inputs = Input((None,), dtype="int32")
    x = layers.Embedding(len(alphabet), 24)(inputs)
    rnn = RecurrentSequential([RHNCell(64, recurrence_depth=2), layers.Dense(len(alphabet))], return_sequences=True)
    model = keras.Model(inputs, rnn(x))
    model.compile(keras.optimizers.Adam(0.005), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    held = windows(codes[cut:], 5)
    before = model.evaluate(*held, verbose=0) / np.log(2)
    model.fit(*windows(codes[:cut], 4), epochs=epochs, batch_size=16, verbose=0)
    after = model.evaluate(*held, verbose=0) / np.log(2)
    print(f"bits per character of unseen text: {before:.2f} before, {after:.2f} after training")
    return before, after


if __name__ == "__main__":
    first, last = main()
    assert last < 0.8 * first
