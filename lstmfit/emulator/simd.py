"""Matrix-vector products in explicit vector instructions, for numba.

LLVM does not keep the sums of such a product in registers by itself (numba's arrays may alias), which costs a factor
of four here. So the inner loop is written in LLVM's own vector types; it compiles to whatever width the machine has.
"""

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WIDTH = 16
"""float32 numbers in one vector of the code: one register with AVX-512, two with AVX2, four with NEON."""
VECTORS = 4
"""Vectors in a full panel of columns."""
PANEL = WIDTH * VECTORS


def padded(n: int) -> int:
    """Columns that a matrix of `n` columns takes in panels."""
    return -(-n // WIDTH) * WIDTH


def panels(matrix: np.ndarray) -> np.ndarray:
    """Lay a matrix out for `multiply`.

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


def _product(vectors, lanes):
    """Intrinsic: acc[lane, 16 * vectors] += h[lane, n] @ panel for `lanes` signals side by side."""

    @intrinsic
    def product(typingctx, acc, acc_at, acc_stride, h, h_at, h_stride, w, w_at, w_stride, n):
        at = (types.intp, types.intp)
        signature = types.void(acc, *at, h, *at, w, *at, types.intp)

        def codegen(context, builder, sig, args):
            f32, i64 = ir.FloatType(), ir.IntType(64)
            vec = ir.VectorType(f32, WIDTH)
            fast = ("contract",)
            acc_p, h_p, w_p = (
                context.make_array(sig.args[i])(context, builder, args[i]).data for i in (0, 3, 6)
            )
            acc_at, acc_stride, h_at, h_stride, w_at, w_stride, n = (args[i] for i in (1, 2, 4, 5, 7, 8, 9))

            def vector_at(pointer, index):
                return builder.bitcast(builder.gep(pointer, [index]), vec.as_pointer())

            def load(pointer):
                value = builder.load(pointer)
                value.align = 4
                return value

            lane_at = [builder.add(acc_at, builder.mul(acc_stride, i64(lane))) for lane in range(lanes)]
            targets = [
                [vector_at(acc_p, builder.add(lane_at[lane], i64(WIDTH * v))) for v in range(vectors)]
                for lane in range(lanes)
            ]
            start = [[load(t) for t in row] for row in targets]
            h_lane = [builder.add(h_at, builder.mul(h_stride, i64(lane))) for lane in range(lanes)]
            before = builder.block
            loop, after = builder.append_basic_block("k"), builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", n, i64(0)), loop, after)
            builder.position_at_end(loop)
            k = builder.phi(i64)
            sums = [[builder.phi(vec) for _ in range(vectors)] for _ in range(lanes)]
            row = builder.add(w_at, builder.mul(k, w_stride))
            weights = [load(vector_at(w_p, builder.add(row, i64(WIDTH * v)))) for v in range(vectors)]
            new = []
            for lane in range(lanes):
                value = builder.load(builder.gep(h_p, [builder.add(h_lane[lane], k)]))
                one = builder.insert_element(ir.Constant(vec, ir.Undefined), value, ir.IntType(32)(0))
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
                spread = builder.shuffle_vector(one, ir.Constant(vec, ir.Undefined), zeros)
                new.append(
                    [
                        builder.fadd(sums[lane][v], builder.fmul(spread, weights[v], flags=fast), flags=fast)
                        for v in range(vectors)
                    ]
                )
            following = builder.add(k, i64(1))
            k.add_incoming(i64(0), before)
            k.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, n), loop, after)
            for lane in range(lanes):
                for v in range(vectors):
                    sums[lane][v].add_incoming(start[lane][v], before)
                    sums[lane][v].add_incoming(new[lane][v], loop)
            builder.position_at_end(after)
            for lane in range(lanes):
                for v in range(vectors):
                    final = builder.phi(vec)
                    final.add_incoming(start[lane][v], before)
                    final.add_incoming(new[lane][v], loop)
                    new[lane][v] = final
            for lane in range(lanes):
                for v in range(vectors):
                    builder.store(new[lane][v], targets[lane][v]).align = 4
            return context.get_dummy_value()

        return signature, codegen

    return product


_one_4, _one_1 = _product(4, 1), _product(1, 1)
_four_2, _four_1 = _product(2, 4), _product(1, 4)


@njit(inline="always")
def multiply_one(acc, acc_at, h, h_at, w, w_at, n, m):
    """acc[acc_at : acc_at + m] += h[h_at : h_at + n] @ matrix; flat arrays, the matrix in panels from w_at on."""
    j = 0
    while j + PANEL <= m:
        _one_4(acc, acc_at + j, 0, h, h_at, 0, w, w_at, PANEL, n)
        w_at += n * PANEL
        j += PANEL
    rest = m - j
    for v in range(rest // WIDTH):
        _one_1(acc, acc_at + j + v * WIDTH, 0, h, h_at, 0, w, w_at + v * WIDTH, rest, n)


@njit(inline="always")
def multiply_four(acc, acc_at, acc_stride, h, h_at, h_stride, w, w_at, n, m):
    """The same for four signals at once, `acc_stride` and `h_stride` apart: each weight is read once for the four."""
    j = 0
    while j + PANEL <= m:
        _four_2(acc, acc_at + j, acc_stride, h, h_at, h_stride, w, w_at, PANEL, n)
        _four_2(acc, acc_at + j + 2 * WIDTH, acc_stride, h, h_at, h_stride, w, w_at + 2 * WIDTH, PANEL, n)
        w_at += n * PANEL
        j += PANEL
    rest = m - j
    for v in range(rest // WIDTH):
        _four_1(acc, acc_at + j + v * WIDTH, acc_stride, h, h_at, h_stride, w, w_at + v * WIDTH, rest, n)
