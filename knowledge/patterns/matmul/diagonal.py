"""C++ of a product with a diagonal matrix: rows or columns scaled, in one sweep."""

from knowledge.loops.mathematics import helpers
from knowledge.patterns.matmul.contraction import Contraction
from knowledge.tiles import elements_cpp

HEADERS_CPP = "#include <cmath>\n#include <cstdint>\n#include <cstring>\n"
DIAGONAL_CPP = r"""
static inline int64_t non_finite(real value) { return value - value != 0; }

extern "C" void $NAME(
        const element* a, const element* b, element* out, int64_t rows, int64_t columns,
        int64_t) {
    const element *diagonal = $DIAGONAL, *matrix = $MATRIX;
    int64_t found = 0;
#pragma omp parallel for reduction(+ : found)
    for (int64_t i = 0; i < rows; ++i)
#pragma omp simd reduction(+ : found)
        for (int64_t j = 0; j < columns; ++j) {
            const real value = value_of(matrix + i * columns + j);
            out[i * columns + j] = rounded(value_of(diagonal + $LINE) * value);
            found += non_finite(value);
        }
    if (found == 0) return;
    // The product multiplies all other elements of the line by zero, and 0 * inf is NaN.
    const int64_t lines = $LINES, length = rows * columns / lines;
#pragma omp parallel for
    for (int64_t line = 0; line < lines; ++line) {
        int64_t bad = 0;
        for (int64_t at = 0; at < length; ++at) bad += non_finite(value_of(matrix + $PLACE));
        for (int64_t at = 0; at < length; ++at)
            if (bad > non_finite(value_of(matrix + $PLACE))) out[$PLACE] = rounded(NAN);
    }
}
"""


def print_diagonal(found: Contraction, name: str) -> str:
    """The translation unit of diag(a) b or of a diag(b)."""
    by_row = found.diagonal == "a"
    words = {
        "$NAME": name,
        "$DIAGONAL": "a" if by_row else "b",
        "$MATRIX": "b" if by_row else "a",
        "$LINES": "columns" if by_row else "rows",
        "$LINE": "i" if by_row else "j",
        "$PLACE": "at * columns + line" if by_row else "line * columns + at",
    }
    text = DIAGONAL_CPP
    for word, meant in words.items():
        text = text.replace(word, meant)
    elements = elements_cpp(found.dtype)
    return f"{HEADERS_CPP}{helpers(elements, inline=True)}{elements}{text}"
