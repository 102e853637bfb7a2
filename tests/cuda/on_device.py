"""The engine for device arrays, as tests call it: NumPy's arrays go there and back around each call.

On a fake device, or on a GPU (`tests/cuda/gpu`).
"""

from rsref.engine import Gradients
from rsref_fast.cuda.engine import CudaEngine
from tests.cuda.fake import OnDevice, back
from tests.cuda.kernels import TILE


class ThereAndBack:
    """A `CudaEngine` with the arguments and answers of `rsref.engine.Engine`, NumPy's arrays.

    options: the engine's; without them tiles and blocks of rows are small.
    """

    def __init__(self, recurrence, device, **options):
        self.device = device
        self.engine = CudaEngine(recurrence, device, **{"tile": TILE, "rows": 8, **options})

    def _there(self, arrays):
        with self.device.bound():
            return [None if a is None else OnDevice(self.device, a) for a in arrays]

    def _back(self, arrays):
        with self.device.bound():
            return [back(self.device, a) for a in arrays]

    def forward(self, sequences, constants, states, parameters, mask=None, steps=None, taped=True):
        given = [self._there(group) for group in (sequences, constants, states, parameters)]
        (mask,) = self._there([mask])
        outputs, finals, tape = self.engine.forward(*given, mask=mask, steps=steps, taped=taped)
        return self._back(outputs), self._back(finals), tape

    def backward(self, tape, d_outputs, d_states):
        found = self.engine.backward(tape, self._there(d_outputs), self._there(d_states))
        groups = (found.sequences, found.constants, found.states, found.parameters)
        return Gradients(*map(self._back, groups))

    def uploads(self, arguments):
        """Return how often a training call copies to the device once all is compiled; see that nobody waits for it."""
        given = [self._there(getattr(arguments, name)) for name in ("sequences", "constants", "states", "parameters")]
        (mask,) = self._there([arguments.mask])

        def once():
            (y,), finals, tape = self.engine.forward(*given, mask=mask)
            assert y.contiguous
            self.engine.backward(tape, [y], [None] * len(finals))

        once()  # compiles, and copies what depends on the sizes alone
        before = dict(self.device.api.used)
        once()
        used = {name: count - before.get(name, 0) for name, count in self.device.api.used.items()}
        for name in ("cuStreamSynchronize", "cuMemcpyDtoHAsync", "cuModuleLoadData"):
            assert used.get(name, 0) == 0
        return used["cuMemcpyHtoDAsync"]
