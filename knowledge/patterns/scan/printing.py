"""Prints a scan as C++: along rows by vectors with log-step prefixes, else by neighbours in lanes.

Sums and products are gathered in double, as the library does; block by block through a buffer that
stays in the innermost cache.
"""

from knowledge.loops.epilogue import Epilogue
from knowledge.loops.mathematics import helpers
from knowledge.loops.spelling import STORAGE, loaded, stored
from knowledge.patterns.scan.chain import Scan

_BASICS = """
typedef {element} element;
typedef {wide} wide;
typedef {made} made;
constexpr bool REVERSED = {reverse}, EXCLUSIVE = {exclusive};
constexpr int64_t BLOCK = {block};
// Few long rows are cut into this many parts, whose totals are found first.
constexpr int64_t PARTS = 16, FEW_ROWS = 8, LONG_ROW = 65536;
static inline made rounded(wide x) {{ return {stored}; }}
static inline int64_t place_of(int64_t step, int64_t length) {{
    return REVERSED ? length - 1 - step : step;
}}
"""

_JOINED = """
constexpr wide NEUTRAL = {neutral};
template <typename T> static inline T joined(T a, T b) {{ return {joined}; }}
"""

_PREFIX = """
// As wide as the machine's vectors: wider ones are shuffled element by element.
#if defined(__AVX512F__)
constexpr int WIDTH = 64;
#else
constexpr int WIDTH = 32;
#endif
constexpr int LANES = WIDTH / sizeof(wide);
typedef wide vector __attribute__((vector_size(WIDTH)));
typedef {mask} mask __attribute__((vector_size(WIDTH)));

// Lanes moved up by `by`; neutral elements come in from below.
template <int by> static inline vector shifted(vector x) {{
#if defined(__clang__)
    vector moved = vector{{}} + NEUTRAL;
    for (int lane = by; lane < LANES; ++lane) moved[lane] = x[lane - by];
    return moved;
#else
    mask from;
    for (int lane = 0; lane < LANES; ++lane) from[lane] = lane >= by ? lane - by : LANES;
    return __builtin_shuffle(x, vector{{}} + NEUTRAL, from);
#endif
}}

// Prefixes of a block of whole vectors in place, `carry` being what came before.
static inline void scan_block(wide* block, int64_t vectors, vector& carry) {{
    for (int64_t n = 0; n < vectors; ++n) {{
        vector* here = reinterpret_cast<vector*>(block) + n;
        vector x = *here;
        x = joined(shifted<1>(x), x);
        x = joined(shifted<2>(x), x);
        if (LANES > 4) x = joined(shifted<4>(x), x);
        if (LANES > 8) x = joined(shifted<8>(x), x);
        *here = joined(carry, EXCLUSIVE ? shifted<1>(x) : x);
        carry = joined(carry, vector{{}} + x[LANES - 1]);
    }}
}}
"""

_ROWS = """
// Steps [begin, end) of one row, in blocks; `carry` is what came before, and then what came by end.
static void scan_steps(
        {sources}, made* __restrict__ out, int64_t length,
        int64_t begin, int64_t end, wide& carry) {{
    alignas(64) wide block[BLOCK];
    vector running = vector{{}} + carry;
    for (int64_t first = begin; first < end; first += BLOCK) {{
        const int64_t count = end - first < BLOCK ? end - first : BLOCK;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {{
            const int64_t at = place_of(first + i, length);
            block[i] = {loaded};
        }}
        const int64_t vectors = (count + LANES - 1) / LANES;
        for (int64_t i = count; i < vectors * LANES; ++i) block[i] = NEUTRAL;
        scan_block(block, vectors, running);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) out[place_of(first + i, length)] = rounded(block[i]);
    }}
    carry = running[0];
}}
"""

_TOTALS = """
// What steps [begin, end) of one row come to.
static wide total_of({sources}, int64_t length, int64_t begin, int64_t end) {{
    alignas(64) wide lanes[LANES];
    for (int lane = 0; lane < LANES; ++lane) lanes[lane] = NEUTRAL;
    int64_t step = begin;
    for (; step + LANES <= end; step += LANES)
#pragma omp simd
        for (int lane = 0; lane < LANES; ++lane) {{
            const int64_t at = place_of(step + lane, length);
            lanes[lane] = joined(lanes[lane], static_cast<wide>({loaded}));
        }}
    wide total = NEUTRAL;
    for (int lane = 0; lane < LANES; ++lane) total = joined(total, lanes[lane]);
    for (; step < end; ++step) {{
        const int64_t at = place_of(step, length);
        total = joined(total, static_cast<wide>({loaded}));
    }}
    return total;
}}
"""

_LOG_STEPS = """
constexpr wide NEUTRAL = -INFINITY;

// log(exp(a) + exp(b)); an infinity that both are stays, and NaN comes through.
static inline wide log_add(wide a, wide b) {{
    const wide low = b < a || b != b ? b : a, high = b < a ? a : b;
    if (low == high && std::isinf(low)) return low;
    return high + std::log1p(std::exp(low - high));
}}

// Steps [begin, end) of one row, in blocks. The sum so far is total * exp(top); a block that rises
// too far above what it starts from, or is not finite, is done step by step.
static void scan_steps(
        {sources}, made* __restrict__ out, int64_t length,
        int64_t begin, int64_t end, wide& carry) {{
    wide block[BLOCK];
    wide top = carry, total = 1;
    for (int64_t first = begin; first < end; first += BLOCK) {{
        const int64_t count = end - first < BLOCK ? end - first : BLOCK;
        wide highest = top;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {{
            const int64_t at = place_of(first + i, length);
            block[i] = {loaded};
        }}
#pragma omp simd reduction(max : highest)
        for (int64_t i = 0; i < count; ++i) highest = highest > block[i] ? highest : block[i];
        bool has_nan = false;
        for (int64_t i = 0; i < count; ++i) has_nan |= block[i] != block[i];
        const wide start = top > -INFINITY ? top : block[0];
        if (!has_nan && std::isfinite(highest) && start - highest > -30) {{
            value powers[BLOCK];
#pragma omp simd
            for (int64_t i = 0; i < count; ++i)
                powers[i] = vector_exp(static_cast<value>(block[i] - highest));
            wide sum = top > -INFINITY ? total * std::exp(top - highest) : 0;
            for (int64_t i = 0; i < count; ++i) block[i] = sum += powers[i];
#pragma omp simd
            for (int64_t i = 0; i < count; ++i)
                powers[i] = vector_log(static_cast<value>(block[i]));
            for (int64_t i = 0; i < count; ++i)
                out[place_of(first + i, length)] = rounded(highest + powers[i]);
            top = highest;
            total = sum;
            continue;
        }}
        top += std::log(total);
        total = 1;
        for (int64_t i = 0; i < count; ++i) {{
            top = log_add(top, block[i]);
            out[place_of(first + i, length)] = rounded(top);
        }}
    }}
    carry = top + std::log(total);
}}
"""

_LANES = """
// Neighbouring columns side by side; along them nothing is scanned.
static void scan_lanes(
        {sources}, made* __restrict__ out, int64_t length, int64_t inner, int64_t lanes) {{
    wide state[STRIP];
    for (int64_t lane = 0; lane < lanes; ++lane) state[lane] = NEUTRAL;
    for (int64_t step = 0; step < length; ++step) {{
        const int64_t row = place_of(step, length) * inner;
#pragma omp simd
        for (int64_t lane = 0; lane < lanes; ++lane) {{
            const int64_t at = row + lane;
            const wide x = {loaded};
            const wide before = state[lane];
            state[lane] = joined(before, x);
            out[at] = rounded(EXCLUSIVE ? before : state[lane]);
        }}
    }}
}}
"""

_LOG_LANES = """
// Neighbouring columns side by side; the sum so far of each is total * exp(top).
static void scan_lanes(
        {sources}, made* __restrict__ out, int64_t length, int64_t inner, int64_t lanes) {{
    wide total[STRIP];
    value top[STRIP];
    for (int64_t lane = 0; lane < lanes; ++lane) total[lane] = 0, top[lane] = -INFINITY;
    for (int64_t step = 0; step < length; ++step) {{
        const int64_t row = place_of(step, length) * inner;
#pragma omp simd
        for (int64_t lane = 0; lane < lanes; ++lane) {{
            const int64_t at = row + lane;
            const value x = {loaded};
            const value apart = x == top[lane] ? 0 : x > top[lane] ? top[lane] - x : x - top[lane];
            const value power = vector_exp(apart);
            total[lane] = x > top[lane] ? total[lane] * power + 1 : total[lane] + power;
            top[lane] = x > top[lane] ? x : top[lane];
            out[at] = rounded(top[lane] + vector_log(static_cast<value>(total[lane])));
        }}
    }}
}}
"""

_MAIN_LANES = """
extern "C" void {name}(
        {parameters}, element* result,
        int64_t outer, int64_t length, int64_t inner) {{
    const int64_t strips = (inner + STRIP - 1) / STRIP;
#pragma omp parallel for schedule(static) if (outer * length * inner > 16384)
    for (int64_t task = 0; task < outer * strips; ++task) {{
        const int64_t first = task % strips * STRIP;
        const int64_t lanes = inner - first < STRIP ? inner - first : STRIP;
        const int64_t start = task / strips * length * inner + first;
        scan_lanes({moved}, result + start, length, inner, lanes);
    }}
}}
"""

_MAIN_PARTS = """
extern "C" void {name}(
        {parameters}, element* result,
        int64_t outer, int64_t length) {{
    const int64_t parts = outer < FEW_ROWS && length >= LONG_ROW ? PARTS : 1;
    std::vector<wide> carries(outer * parts, NEUTRAL);
    if (parts > 1) {{
#pragma omp parallel for schedule(static)
        for (int64_t task = 0; task < outer * parts; ++task) {{
            const int64_t start = task / parts * length, part = task % parts;
            if (part + 1 < parts)
                carries[task + 1] = total_of(
                    {moved}, length, length * part / parts, length * (part + 1) / parts);
        }}
        for (int64_t task = 0; task < outer * parts; ++task)
            carries[task] = task % parts ? joined(carries[task - 1], carries[task]) : NEUTRAL;
    }}
#pragma omp parallel for schedule(static) if (outer * length > 16384)
    for (int64_t task = 0; task < outer * parts; ++task) {{
        const int64_t start = task / parts * length, part = task % parts;
        scan_steps({moved}, result + start, length, length * part / parts,
                   length * (part + 1) / parts, carries[task]);
    }}
}}
"""

_MAIN_ROWS = """
extern "C" void {name}(
        {parameters}, {written},
        int64_t outer, int64_t length) {{
#pragma omp parallel if (outer > 1 && outer * length > 16384)
    {{{scratch}
#pragma omp for schedule(static)
        for (int64_t row = 0; row < outer; ++row) {{
            const int64_t start = row * length;
            made* const block = {block};
            wide carry = NEUTRAL;
            scan_steps({moved}, block + start, length, 0, length, carry);{call}{copy}
        }}
    }}
}}
"""
# An epilogue reads what was not rounded yet.
_COPY = """
            for (int64_t at = start; at < start + length; ++at) result[at] = {stored};"""


def print_scan(scan: Scan, factors: tuple[str, ...], name: str, strip: int | None,
               epilogue: Epilogue | None) -> str:  # fmt: skip
    """The translation unit of a scan.

    Args:
        scan: what is scanned.
        factors: the dtypes of the tensors whose product is scanned.
        name: the function's name.
        strip: how many neighbours lie side by side in lanes; None for rows.
        epilogue: what is done to each row while it is in cache.
    """
    logarithmic = scan.operation == "logcumsumexp"
    value = "double" if scan.dtype == "float64" else "float"
    wide = epilogue is not None and epilogue.reads_wide
    words = _words(scan, factors, value, wide)
    parts = [_BASICS.format(**words, block=1024 if not logarithmic else 256)]
    if strip is not None:
        parts.append(f"constexpr int64_t STRIP = {strip};\n")
    if logarithmic:
        parts.append(f"typedef {value} value;\n")
        parts.append((_LOG_STEPS if strip is None else _LOG_LANES).format(**words))
    else:
        parts.append(_JOINED.format(**words))
        parts += [_PREFIX.format(**words), _ROWS.format(**words)] if strip is None else []
        parts += [_LANES.format(**words)] if strip is not None else []
    parts.append(_main(scan, words, name, strip, epilogue))
    body = "".join(parts)
    if "total_of" in body:
        body = body.replace(parts[-1], _TOTALS.format(**words) + parts[-1])
    before = epilogue.source if epilogue is not None else ""
    head = "".join(f"#include <{one}>\n" for one in ("cmath", "cstdint", "cstring", "vector"))
    return head + before + helpers(body, inline=True, given=before) + body


def _words(scan: Scan, factors: tuple[str, ...], value: str, keeps_floats: bool) -> dict[str, str]:
    """What the templates are filled with."""
    extreme = scan.operation in ("cummax", "cummin")
    wide = value if extreme else "double"
    sign = ">" if scan.operation == "cummax" else "<"
    formula = {"cumsum": "a + b", "cumprod": "a * b"}.get(
        scan.operation, f"(a {sign} b) | (a != a) ? a : b"
    )
    start = {"cumsum": "0", "cumprod": "1", "cummax": "-INFINITY", "cummin": "INFINITY"}
    single = f"static_cast<{value}>(x)" if value != wide else "x"
    terms = [
        f"static_cast<{value}>({loaded(dtype, f'x{n}[at]')})" for n, dtype in enumerate(factors)
    ]
    sources = [f"const {STORAGE[dtype]}* x{n}" for n, dtype in enumerate(factors)]
    return {
        "element": STORAGE[scan.dtype],
        "wide": wide,
        "reverse": "true" if scan.reverse else "false",
        "exclusive": "true" if scan.exclusive else "false",
        "made": value if keeps_floats else STORAGE[scan.dtype],
        "stored": single if keeps_floats else stored(scan.dtype, single),
        "neutral": start.get(scan.operation, ""),
        "joined": formula,
        "mask": "int64_t" if wide == "double" else "int32_t",
        "sources": ", ".join(sources),
        "loaded": " * ".join(terms),
        "moved": ", ".join(f"x{n} + start" for n in range(len(factors))),
    }


def _main(
    scan: Scan, words: dict[str, str], name: str, strip: int | None, epilogue: Epilogue | None
) -> str:
    given = {"name": name, "parameters": words["sources"], "moved": words["moved"]}
    if strip is not None:
        return _MAIN_LANES.format(**given)
    if epilogue is None and scan.operation != "logcumsumexp":
        return _MAIN_PARTS.format(**given)
    if epilogue is None:
        return _MAIN_ROWS.format(
            **given, written="element* result", scratch="", block="result", call="", copy=""
        )
    written = epilogue.parameters.split(", ")
    in_place = epilogue.keeps_anchor and not epilogue.reads_wide
    copied = epilogue.keeps_anchor and epilogue.reads_wide
    if epilogue.keeps_anchor:
        written.insert(len(epilogue.reads), "element* result")
    call = epilogue.call("block", "row", "row + 1", "outer")
    return _MAIN_ROWS.format(
        **given,
        written=", ".join(written),
        scratch="" if in_place else "\n        std::vector<made> scratch(length);",
        block="result" if in_place else "scratch.data() - row * length",
        call=f"\n            {call}",
        copy=_COPY.format(stored=stored(scan.dtype, "block[at]")) if copied else "",
    )
