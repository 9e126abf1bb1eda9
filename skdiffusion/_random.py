"""Random numbers that do not depend on how the work is cut up.

Training uses ordinary :class:`torch.Generator` objects. Sampling uses a *counter-based*
generator instead: the noise of a cell is a pure function of (seed, content of its row, draw,
step, cell). A row therefore receives the same noise alone, in a batch, in another order and at
another batch size, and two rows never share noise, which would make their errors move together.
"""

import hashlib
import math
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.utils import check_random_state

# Constants of Philox4x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), and
# the numbers that are made at once, which stay in a cache.
_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_BLOCK = 2**15
# Constants of SplitMix64 as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def draw_seed(random_state):
    """Turn ``random_state`` into one 63-bit seed; an int always gives the same one."""
    high, low = check_random_state(random_state).randint(0, 2**31 - 1, size=2, dtype=np.int64)
    return int(high) << 31 | int(low)


def torch_generator(seed, device="cpu"):
    """Return a fresh generator, so that the global one is never touched."""
    return torch.Generator(device=device).manual_seed(int(seed))


def philox(counter, key, rounds=10):
    """Philox-4x32: four 32-bit words from a 128-bit counter and a 64-bit key.

    Parameters
    ----------
    counter : sequence of four int64 tensors
        The counter words, each in [0, 2**32); they broadcast against each other and the key.
    key : sequence of two int64 tensors
        The key words.
    rounds : int, default=10
        Number of rounds.

    Returns
    -------
    words : tuple of four int64 tensors
        Independent uniform integers in [0, 2**32).

    References
    ----------
    .. [1] J. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
       https://doi.org/10.1145/2063384.2063405.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for i in range(rounds):
        # int64 products wrap, but their 64 bits are those of the unsigned product.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        step0, step1 = (k0 + i * _WEYL[0]) & _MASK, (k1 + i * _WEYL[1]) & _MASK
        c0, c1, c2, c3 = (
            (p1 >> 32) & _MASK ^ c1 ^ step0,
            p1 & _MASK,
            (p0 >> 32) & _MASK ^ c3 ^ step1,
            p0 & _MASK,
        )
    return c0, c1, c2, c3


def normals(keys, draw, step, cell, dtype=torch.float32):
    """Standard normal noise as a pure function of its address.

    Parameters
    ----------
    keys : int64 tensor
        One 64-bit key a row, from :func:`row_keys`.
    draw, step, cell : int64 tensors or ints
        Non-negative addresses below 2**32; all four arguments broadcast.
    dtype : torch.dtype, default=torch.float32
        Type of the result.

    Returns
    -------
    noise : tensor
        Independent N(0, 1) values of the broadcast shape.
    """
    address = [
        torch.as_tensor(x, dtype=torch.int64, device=keys.device) for x in (keys, draw, step, cell)
    ]
    # That of torch imports sympy, a second and a half.
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in address))
    address = [torch.atleast_1d(x) for x in address]
    n_parts = 1 if keys.is_cuda else max(1, math.prod(shape) // _BLOCK)
    # Blocks that stay in the processor's cache are twice as fast.
    split = lambda x: x.tensor_split(n_parts, -1) if x.shape[-1] > 1 else [x] * n_parts  # noqa: E731
    blocks = [_normals(*part).to(dtype) for part in zip(*map(split, address), strict=True)]
    return torch.cat(blocks, -1).reshape(shape)


def _normals(keys, draw, step, cell):
    """Box-Muller on the words of Philox."""
    key = (keys & _MASK, (keys >> 32) & _MASK)
    words = philox((cell, step, draw, torch.zeros_like(cell)), key)
    # Two words give one 53-bit uniform in (0, 1); the angle needs no more than 32 bits.
    radius = ((words[0] << 21 | words[1] >> 11).to(torch.float64) + 0.5) * 2.0**-53
    angle = (words[2].to(torch.float64) + 0.5) * (2.0**-32 * 2 * np.pi)
    return torch.sqrt(-2 * torch.log(radius)) * torch.cos(angle)


@dataclass(frozen=True)
class Place:
    """Where the rows of a call stand in a larger one, a part of which they are.

    Attributes
    ----------
    earlier : dict of int to int
        For the digests of rows, their first 8 bytes, how many equal rows stand before the part.
    digest : bytes or None
        That of the whole series, where the rows are a piece of one.
    first : int
        Number of the first row in this series.
    """

    earlier: dict = field(default_factory=dict)
    digest: bytes | None = None
    first: int = 0


_place = ContextVar("place", default=None)


@contextmanager
def placed(place):
    """Give the rows of the calls inside the noise that they have at their place."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def this_place():
    """The place of the call in progress."""
    return _place.get() or Place()


def row_keys(rows, seed):
    """Return one 64-bit noise key a row, from the row's bytes and the seed.

    Equal rows get different keys by their order of occurrence, so that repeated rows receive
    independent draws.

    Parameters
    ----------
    rows : iterable of ndarray
        The rows (samples, windows or whole series); missing values count by their place only.
    seed : int
        The seed of the whole call.

    Returns
    -------
    keys : int64 tensor of shape (n_rows,)
        The keys.
    """
    place = this_place()
    if place.digest is None:
        digests = row_digests(rows)
    else:
        digests = [place.digest] * len(rows)
    repeats = _repeats(digests)
    if place.earlier:
        repeats += [place.earlier.get(start, 0) for start in digest_starts(digests).tolist()]
    salts = {repeat: f"{seed}:{repeat}".encode()[:64] for repeat in np.unique(repeats).tolist()}
    keys = b"".join(
        hashlib.blake2b(digest, digest_size=8, key=salts[repeat]).digest()
        for digest, repeat in zip(digests, repeats.tolist())
    )
    return torch.from_numpy(np.frombuffer(keys, "<i8").astype(np.int64))


def row_digests(rows):
    """Digests of 16 bytes of what rows hold, one a row."""
    if not isinstance(rows, np.ndarray):
        return [series_digest([row]) for row in rows]
    digests = []
    for i in range(0, len(rows), _BLOCK):
        block = _canonical(rows[i : i + _BLOCK]).reshape(len(rows[i : i + _BLOCK]), -1)
        digests += [hashlib.blake2b(row, digest_size=16).digest() for row in block]
    return digests


def series_digest(parts):
    """Digest of one row or series, whose parts come one after the other."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        part = np.atleast_1d(part)
        for i in range(0, len(part), _BLOCK):
            digest.update(_canonical(part[i : i + _BLOCK]))
    return digest.digest()


def digest_starts(digests):
    """The first 8 bytes of digests as integers."""
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)[:, 0]


def _canonical(values):
    """One NaN and one zero, so that equal values have equal bytes."""
    values = np.asarray(values, dtype=np.float64)
    return np.ascontiguousarray(np.where(np.isnan(values), np.nan, values + 0.0))


def _repeats(digests):
    """How often each digest stands before its place."""
    halves = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
    order = np.lexsort(halves.T)
    number = np.arange(len(order))
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (halves[order[1:]] != halves[order[:-1]]).any(axis=1)
    repeats = np.empty(len(order), dtype=np.int64)
    repeats[order] = number - np.maximum.accumulate(np.where(fresh, number, 0))
    return repeats


def chain_keys(seed, start, stop, device="cpu"):
    """Return the 64-bit noise keys of chains ``start`` to ``stop``, a hash of seed and index."""
    index = torch.arange(start, stop, dtype=torch.int64, device=device)
    return _mix64(_mix64(index.new_full((1,), seed)) + index * _GOLDEN)


def branch_keys(keys, n_branches):
    """Keys (n_rows, n_branches) of further noise of rows, other than that of their own keys."""
    index = torch.arange(1, n_branches + 1, device=keys.device)
    return _mix64(_mix64(keys)[:, None] + index * _GOLDEN)


class ChainNoise:
    """Noise of many Markov chains as a pure function of (chain key, stream, step, cell).

    A chain receives the same noise in whatever block it runs. The bits come from a SplitMix64
    hash, which in blocks of steps is as cheap as a sequential generator; :func:`normals` is ten
    times dearer.

    Parameters
    ----------
    keys : int64 tensor of shape (n_chains,)
        One key a chain.
    n_features : int
        Number of normals a chain and step.
    dtype : torch.dtype
        Type of the noise.

    References
    ----------
    .. [1] G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators",
       OOPSLA 2014, https://doi.org/10.1145/2660193.2660195.
    """

    n_streams = 4

    def __init__(self, keys, n_features, dtype=torch.float64):
        self._keys, self._gamma = keys, _mix64(keys ^ _GOLDEN) | 1
        self._pairs, self._n_features, self._dtype = (n_features + 1) // 2, n_features, dtype
        # Enough steps at once to hide the overhead of a call, few enough to stay in the cache.
        self._ahead = max(1, min(32, 2**14 // max(1, len(keys) * self._pairs)))
        self._cache = {}

    def normal(self, step):
        """Standard normals of shape (n_chains, n_features)."""
        return self._at("normal", step, self._normals)

    def log_uniform(self, step, stream=1):
        """Logarithms of uniforms of shape (n_chains,), for acceptance tests."""
        return self._at(stream, step, lambda first: self._log_uniforms(first, stream))

    def _at(self, name, step, make):
        """Noise of one step out of a block of steps made ahead."""
        first = step - step % self._ahead
        if self._cache.get(name, (None,))[0] != first:
            self._cache[name] = first, make(first)
        return self._cache[name][1][step - first]

    def _bits(self, first, stream, n_cells):
        """Hash of the addresses: int64 tensor (n_steps, n_cells, n_chains)."""
        step = torch.arange(first, first + self._ahead, device=self._keys.device)
        cell = torch.arange(n_cells, device=self._keys.device)
        # The cells of a stream and step come in one run, so no two addresses share a counter.
        counter = (step[:, None] * self.n_streams + stream) * max(self._pairs, 1) + cell
        return _mix64(counter[:, :, None] * self._gamma + self._keys)

    def _normals(self, first):
        """Box-Muller on the two halves of every hash."""
        bits = self._bits(first, 0, self._pairs)
        radius, angle = self._halves(bits)
        radius = radius.log_().mul_(-2).sqrt_()
        angle = angle.mul_(2 * np.pi)
        # Both numbers of every pair, in memory the chains last: chains move as columns.
        noise = torch.stack([torch.cos(angle).mul_(radius), angle.sin_().mul_(radius)], 2)
        return noise.flatten(1, 2)[:, : self._n_features].transpose(1, 2)

    def _log_uniforms(self, first, stream):
        """Logarithms of the upper halves."""
        bits = self._bits(first, stream, 1)[:, 0]
        return ((bits >> 32) & _MASK).to(self._dtype).add_(0.5).mul_(2.0**-32).log_()

    def _halves(self, bits):
        """Two uniforms in (0, 1] from the halves of each 64-bit word."""
        upper = ((bits >> 32) & _MASK).to(self._dtype).add_(0.5).mul_(2.0**-32)
        lower = (bits & _MASK).to(self._dtype).add_(0.5).mul_(2.0**-32)
        return upper, lower


def _mix64(x):
    """Finaliser of SplitMix64; the masks turn torch's arithmetic shift into a logical one."""
    x, shifted = x.clone(), torch.empty_like(x)
    for shift, factor in ((30, _MIX[0]), (27, _MIX[1]), (31, 1)):
        torch.bitwise_right_shift(x, shift, out=shifted)
        x.bitwise_xor_(shifted.bitwise_and_((1 << 64 - shift) - 1))
        if factor != 1:
            x.mul_(factor)
    return x
