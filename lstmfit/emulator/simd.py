"""Matrix-vector products and LSTM cells with explicit vector instructions, for numba.

Left to itself, LLVM does not keep the sums of such a product in registers (numba's arrays may alias), which makes it
four times slower, and compiles the cell to half-width code with five divisions. The inner loops are therefore written
with LLVM's vector types.

Matrices are in float32, or in half precision with their bits in uint16. Sums are in float32 in both cases.
"""

import platform

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WIDTH = 16
"""Number of float32 values per vector: one register with AVX-512, two with AVX2, four with NEON."""
NARROW = 8
"""The same for products of one signal, which stream the weights: with AVX-512 on Zen 4, two conversions of eight half
precision numbers take less than half of the time of one of sixteen."""
PANEL = 64
"""Columns of a full panel; with `NARROW` vectors their sums hide the latency of a multiplication."""


def has_feature(name: str) -> bool:
    """Whether compiled code uses a feature of the processor, such as ``avx512f``; see also NUMBA_CPU_FEATURES."""
    features = numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    return f"+{name}" in features.split(",") if features else bool(llvm.get_host_cpu_features().get(name, False))


def converts_halves() -> bool:
    """Whether the processor converts numbers of half precision; without that, float32 is faster."""
    return has_feature("f16c") or platform.machine().lower() in ("aarch64", "arm64")


LANES = 8 if has_feature("avx512f") else 6
"""Signals that the batched product processes together. Their sums and one vector of weights fit into the registers."""


def padded(n: int) -> int:
    """Number of columns `n`, padded to whole vectors."""
    return -(-n // WIDTH) * WIDTH


def panels(matrix: np.ndarray) -> np.ndarray:
    """Arrange a matrix in panels for `multiply_one` and `multiply_many`.

    Parameters
    ----------
    matrix : numpy.ndarray
        (n, m), m a multiple of `WIDTH`.

    Returns
    -------
    numpy.ndarray
        (n * m,): panels of up to `PANEL` columns, each row-major.
    """
    return np.concatenate([matrix[:, j : j + PANEL].ravel() for j in range(0, matrix.shape[1], PANEL)])


F32, F16, I64 = ir.FloatType(), ir.HalfType(), ir.IntType(64)
VECTOR = ir.VectorType(F32, WIDTH)
FAST = ("contract", "nsz", "arcp")


def _data(context, builder, signature, args, i):
    """Pointer to the data of the array passed as argument `i`."""
    return context.make_array(signature.args[i])(context, builder, args[i]).data


def _at(builder, pointer, index, vector):
    """Pointer to the vector that starts at element `index`."""
    return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())


def _load(builder, pointer, index, vector=VECTOR):
    value = builder.load(_at(builder, pointer, index, vector))
    value.align = 4
    return value


def _load_weights(builder, pointer, index, dtype, vector):
    if dtype == types.float32:
        return _load(builder, pointer, index, vector)
    halves = builder.load(_at(builder, pointer, index, ir.VectorType(F16, vector.count)))
    halves.align = 2
    return builder.fpext(halves, vector)


def _store(builder, value, pointer, index):
    builder.store(value, _at(builder, pointer, index, value.type)).align = 4


def _spread(builder, number, vector):
    """Vector with the same number in all lanes."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def _constant(number):
    return ir.Constant(VECTOR, [float(np.float32(number))] * WIDTH)


def _product(width, vectors, lanes):
    """Intrinsic: acc[lane, width * vectors] += h[lane, n] @ panel, for `lanes` signals at a time."""
    vector = ir.VectorType(F32, width)

    @intrinsic
    def product(typingctx, acc, acc_at, acc_stride, h, h_at, h_stride, w, w_at, w_stride, n):
        at = (types.intp, types.intp)
        signature = types.void(acc, *at, h, *at, w, *at, types.intp)

        def codegen(context, builder, sig, args):
            acc_p, h_p, w_p = (_data(context, builder, sig, args, i) for i in (0, 3, 6))
            acc_at, acc_stride, h_at, h_stride, w_at, w_stride, n = (args[i] for i in (1, 2, 4, 5, 7, 8, 9))
            acc_index = [
                [
                    builder.add(builder.add(acc_at, builder.mul(acc_stride, I64(lane))), I64(width * v))
                    for v in range(vectors)
                ]
                for lane in range(lanes)
            ]
            start = [[_load(builder, acc_p, i, vector) for i in row] for row in acc_index]
            h_lane = [builder.add(h_at, builder.mul(h_stride, I64(lane))) for lane in range(lanes)]
            before = builder.block
            loop, after = builder.append_basic_block("k"), builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", n, I64(0)), loop, after)
            builder.position_at_end(loop)
            k = builder.phi(I64)
            sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(lanes)]
            row = builder.add(w_at, builder.mul(k, w_stride))
            columns = [builder.add(row, I64(width * v)) for v in range(vectors)]
            weights = [_load_weights(builder, w_p, at, sig.args[6].dtype, vector) for at in columns]
            new = []
            for lane in range(lanes):
                value = _spread(builder, builder.load(builder.gep(h_p, [builder.add(h_lane[lane], k)])), vector)
                new.append([_multiply_add(builder, value, weights[v], sums[lane][v]) for v in range(vectors)])
            following = builder.add(k, I64(1))
            k.add_incoming(I64(0), before)
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
            for lane in range(lanes):
                for v in range(vectors):
                    sums[lane][v].add_incoming(start[lane][v], before)
                    sums[lane][v].add_incoming(new[lane][v], loop)
            builder.position_at_end(after)
            for lane in range(lanes):
                for v in range(vectors):
                    final = builder.phi(vector)
                    final.add_incoming(start[lane][v], before)
                    final.add_incoming(new[lane][v], loop)
                    new[lane][v] = final
            for lane in range(lanes):
                for v in range(vectors):
                    _store(builder, new[lane][v], acc_p, acc_index[lane][v])
            return context.get_dummy_value()

        return signature, codegen

    return product


def _multiply_add(builder, a, b, c):
    return builder.fadd(builder.fmul(a, b, flags=FAST), c, flags=FAST)


# Rational approximation of tanh to within 3e-7: odd degree 13 over even degree 6, as in Eigen. Highest power first.
TANH_P = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
TANH_LIMIT = 7.9


def _tanh(builder, x, factor=1.0):
    """Numerator and denominator of tanh(factor * x); the caller combines several of them into one division."""
    limit, low = _constant(TANH_LIMIT / factor), _constant(-TANH_LIMIT / factor)
    x = builder.select(builder.fcmp_ordered("<", x, limit), x, limit)
    x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
    y = builder.fmul(x, x, flags=FAST)

    def polynomial(coefficients, power):
        # The factor is folded into the coefficients.
        scaled = [c * factor ** (2 * i + power) for i, c in enumerate(reversed(coefficients))][::-1]
        value = _constant(scaled[0])
        for c in scaled[1:]:
            value = _multiply_add(builder, value, y, _constant(c))
        return value

    return builder.fmul(x, polynomial(TANH_P, 1), flags=FAST), polynomial(TANH_Q, 0)


def _sigmoid(builder, x):
    """Numerator and denominator of 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2."""
    p, q = _tanh(builder, x, 0.5)
    return builder.fadd(p, q, flags=FAST), builder.fadd(q, q, flags=FAST)


def _elementwise(body, n_arrays):
    """Code of an intrinsic f(array, at, array, at, ..., n): `body(builder, pointers, indices, n)` for every vector."""

    def codegen(context, builder, sig, args):
        pointers = [_data(context, builder, sig, args, 2 * i) for i in range(n_arrays)]
        starts, n = [args[2 * i + 1] for i in range(n_arrays)], args[2 * n_arrays]
        before = builder.block
        loop, after = builder.append_basic_block("vector"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", n, I64(0)), loop, after)
        builder.position_at_end(loop)
        k = builder.phi(I64)
        body(builder, pointers, [builder.add(start, k) for start in starts], n)
        following = builder.add(k, I64(WIDTH))
        k.add_incoming(I64(0), before)
        k.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return codegen


def _add_body(builder, pointers, index, n):
    (out, a, b), (out_i, a_i, b_i) = pointers, index
    _store(builder, builder.fadd(_load(builder, a, a_i), _load(builder, b, b_i)), out, out_i)


def _tanh_body(builder, pointers, index, n):
    p, q = _tanh(builder, _load(builder, pointers[0], index[0]))
    _store(builder, builder.fdiv(p, q, flags=FAST), pointers[0], index[0])


def _block_body(builder, pointers, index, n):
    (x_p, gates), (x_at, at) = pointers, index
    tp, tq = _tanh(builder, _load(builder, gates, at))
    sp, sq = _sigmoid(builder, _load(builder, gates, builder.add(at, n)))
    step = builder.fdiv(builder.fmul(tp, sp, flags=FAST), builder.fmul(tq, sq, flags=FAST), flags=FAST)
    _store(builder, builder.fadd(_load(builder, x_p, x_at), step, flags=FAST), x_p, x_at)


def _cell_body(builder, pointers, index, n):
    (gates, c_p, h_p), (at, c_at, h_at) = pointers, index
    i, f, g, o = (_load(builder, gates, builder.add(at, builder.mul(n, I64(gate)))) for gate in range(4))

    def times(*values):
        result = values[0]
        for value in values[1:]:
            result = builder.fmul(result, value, flags=FAST)
        return result

    # c = sigmoid(f) c + sigmoid(i) tanh(g) over one denominator, h = sigmoid(o) tanh(c) over another: two divisions
    # instead of five, which would cost more than everything else.
    (ip, iq), (fp, fq), (gp, gq) = _sigmoid(builder, i), _sigmoid(builder, f), _tanh(builder, g)
    ig = times(iq, gq)
    top = _multiply_add(builder, times(fp, _load(builder, c_p, c_at)), ig, times(ip, gp, fq))
    c = builder.fdiv(top, times(ig, fq), flags=FAST)
    _store(builder, c, c_p, c_at)
    (op, oq), (cp, cq) = _sigmoid(builder, o), _tanh(builder, c)
    _store(builder, builder.fdiv(times(op, cp), times(oq, cq), flags=FAST), h_p, h_at)


@intrinsic
def add(typingctx, out, out_at, a, a_at, b, b_at, n):
    """out[out_at + k] = a[a_at + k] + b[b_at + k] for k < n, in whole vectors."""
    i = types.intp
    return types.void(out, i, a, i, b, i, i), _elementwise(_add_body, 3)


@intrinsic
def tanh(typingctx, x, at, n):
    """x[at : at + n] = tanh(x[at : at + n]), in whole vectors."""
    return types.void(x, types.intp, types.intp), _elementwise(_tanh_body, 1)


@intrinsic
def gated_block(typingctx, x, x_at, gates, at, n):
    """x[x_at + k] += tanh(gates[at + k]) sigmoid(gates[at + n + k]) for k < n, in whole vectors."""
    i = types.intp
    return types.void(x, i, gates, i, i), _elementwise(_block_body, 2)


@intrinsic
def lstm_cell(typingctx, gates, at, c, c_at, h, h_at, n):
    """One LSTM update of n units: the gates i, f, g, o are stored in this order from `at`; c and h change in place."""
    i = types.intp
    return types.void(gates, i, c, i, h, i, i), _elementwise(_cell_body, 3)


_one_panel, _one_vector = _product(NARROW, PANEL // NARROW, 1), _product(NARROW, WIDTH // NARROW, 1)
_many_vector = _product(WIDTH, 1, LANES)


@njit(inline="always")
def multiply_one(acc, acc_at, h, h_at, w, w_at, n, m):
    """acc[acc_at : acc_at + m] += h[h_at : h_at + n] @ matrix; flat arrays, with the matrix in panels from w_at."""
    j = 0
    while j + PANEL <= m:
        _one_panel(acc, acc_at + j, 0, h, h_at, 0, w, w_at, PANEL, n)
        w_at += n * PANEL
        j += PANEL
    rest = m - j
    for v in range(0, rest, WIDTH):
        _one_vector(acc, acc_at + j + v, 0, h, h_at, 0, w, w_at + v, rest, n)


@njit(inline="always")
def multiply_many(acc, acc_at, acc_stride, h, h_at, h_stride, w, w_at, n, m):
    """`multiply_one` for `LANES` signals, `acc_stride` and `h_stride` apart: each weight is loaded once for all."""
    for j in range(0, m, PANEL):
        columns = min(PANEL, m - j)
        for v in range(0, columns, WIDTH):
            _many_vector(acc, acc_at + j + v, acc_stride, h, h_at, h_stride, w, w_at + v, columns, n)
        w_at += n * columns
