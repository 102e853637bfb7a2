"""A query-reduction network (Seo 2016, arXiv 1606.04582): facts are read one by one, a query is reduced by them.

Each fact says that a person is in a place; the query names a person, the answer is the place of the last fact on it.
The query is a constant of the recurrent layer, given to every step: h' = z tanh(W [fact, query]) + (1 - z) h,
with the update gate z = sigmoid(w (fact * query) + b).
"""

import keras
import numpy as np
from keras import Input, layers

from keras_bridge import RecurrentModel

PEOPLE, PLACES, FACTS, WIDTH = 4, 5, 6, 32


def batch(count, seed):
    rng = np.random.default_rng(seed)
    people, places = rng.integers(0, PEOPLE, (count, FACTS)), rng.integers(0, PLACES, (count, FACTS))
    asked = people[np.arange(count), rng.integers(0, FACTS, count)]
    last = FACTS - 1 - np.argmax((people == asked[:, None])[:, ::-1], axis=1)
    return [people, places, asked], places[np.arange(count), last]


def main(epochs=25):
    keras.utils.set_random_seed(0)
    people, places, asked = Input((FACTS,), dtype="int32"), Input((FACTS,), dtype="int32"), Input((), dtype="int32")
    person = layers.Embedding(PEOPLE, WIDTH)
    facts = layers.concatenate([person(people), layers.Embedding(PLACES, WIDTH)(places)])
    query = person(asked)

    fact_t, h_tm1, query_in = Input((2 * WIDTH,)), Input((WIDTH,)), Input((WIDTH,))
    z = layers.Dense(1, activation="sigmoid")(fact_t[:, :WIDTH] * query_in)
    candidate = layers.Dense(WIDTH, activation="tanh")(layers.concatenate([fact_t, query_in]))
    h_t = z * candidate + (1 - z) * h_tm1
    rnn = RecurrentModel(fact_t, h_t, h_tm1, h_t, constants=query_in)

    answer = layers.Dense(PLACES, activation="softmax")(rnn(facts, constants=query))
    model = keras.Model([people, places, asked], answer)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*batch(1500, seed=0), epochs=epochs, batch_size=50, verbose=0)
    accuracy = model.evaluate(*batch(500, seed=1), verbose=0)[1]
    print(f"questions answered rightly: {accuracy:.3f} (chance {1 / PLACES:.3f})")
    return accuracy


if __name__ == "__main__":
    found = main()
    assert found > 0.9, found
