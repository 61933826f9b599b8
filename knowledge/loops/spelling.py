"""How C++ spells things: types, literals, names, and one step of a reduction."""

from knowledge.loops.form import Value, ValueType

STORAGE = {
    "float32": "float",
    "float64": "double",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "int64": "int64_t",
    "int32": "int32_t",
    "int16": "int16_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    # As bytes: GCC 12 makes no vector code of a loop that chooses floats by a bool it loads.
    "bool": "uint8_t",
}


def literal(number: float | int | bool, kind: ValueType) -> str:
    """A number as C++ writes it in the given type."""
    if kind == "bool":
        return "true" if number else "false"
    if kind == "int64_t":
        return f"INT64_C({int(number)})"
    value = float(number)
    if value != value:
        return "NAN"
    if value in (float("inf"), float("-inf")):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{value!r}{'f' if kind == 'float' else ''}"


def start_of(fold: str, kind: str) -> str:
    """What a reduction starts from."""
    if fold in ("sum", "prod"):
        return "0" if fold == "sum" else "1"
    if kind == "int64_t":
        return "INT64_MIN" if fold == "max" else "INT64_MAX"
    return "-INFINITY" if fold == "max" else "INFINITY"


def joined(fold: str, left: str, right: str) -> str:
    """One step of a reduction."""
    if fold in ("sum", "prod"):
        return f"{left} {'+' if fold == 'sum' else '*'} {right}"
    return f"nan_{fold}({left}, {right})"


def label_of(value: Value) -> str:
    """A word for a value, for its name."""
    return value.fold if value.op in ("fold", "total") else value.op


def parenthesised(text: str) -> str:
    """An expression that may follow an operator."""
    return f"({text})" if text.startswith("-") else text


def loaded(dtype: str, element: str) -> str:
    """An element as the type it is computed in."""
    if dtype == "bfloat16":
        return f"float_of({element})"
    if dtype == "float16":
        return f"float_of_half({element})"
    if dtype in ("int32", "int16", "int8", "uint8"):
        return f"static_cast<int64_t>({element})"
    if dtype == "bool":
        return f"({element} != 0)"
    return element


def stored(dtype: str, value: str) -> str:
    """A computed value as the type it is stored in."""
    if dtype == "bfloat16":
        return f"bfloat16_of({value})"
    if dtype == "float16":
        return f"half_of({value})"
    if dtype in ("int32", "int16", "int8", "uint8"):
        return f"static_cast<{STORAGE[dtype]}>({value})"
    return value


def indented(lines: list[str], depth: int = 1) -> list[str]:
    """Lines moved to the right."""
    return ["    " * depth + line for line in lines]


def sum_of(terms: list[str]) -> str:
    """Terms added up; those that are empty or 0 left out."""
    return " + ".join(term for term in terms if term not in ("", "0")) or "0"


# Words of C++ and of its mathematics, and the names that the printer gives.
RESERVED = {
    "row", "col", "lane", "lanes", "first", "start", "count", "size", "block", "blocks",
    "tasks", "task", "label", "rows", "cols", "inner", "int", "float", "double", "long",
    "short", "char", "bool", "auto", "and", "or", "not", "xor", "new", "delete", "this",
    "class", "struct", "union", "template", "operator", "private", "public", "signed",
    "unsigned", "const", "static", "switch", "case", "default", "register", "namespace",
    "using", "void", "typename", "volatile", "export", "extern", "inline", "enum", "do", "for",
    "goto", "if", "else", "return", "sizeof", "true", "false", "try", "catch", "throw",
    "typedef", "virtual", "while", "break", "continue", "friend", "explicit", "mutable",
    "protected", "asm", "bitand", "bitor", "compl", "wchar_t", "std", "strips", "y0", "y1",
    "j0", "j1", "div", "exp", "log", "pow", "sqrt", "abs", "floor", "ceil", "round", "sin",
    "cos", "tan", "erf", "index", "inside", "last", "units", "begin", "end", "ahead", "part",
    "left", "strip", "aligned", "into_lanes", "from_lanes", "int64_t", "int32_t", "int16_t",
    "int8_t", "uint8_t", "float16", "bfloat16", "NAN", "INFINITY", "CHUNK", "LANES", "STRIP",
    "nan_max", "nan_min", "floor_divide", "float_of", "bfloat16_of",
    "float_of_half", "half_of", "stream_row", "store_fence", "widen_halves", "narrow_halves",
    "typeof", "typeid", "decltype", "nullptr", "constexpr", "noexcept", "alignas", "alignof",
    "static_assert", "static_cast", "dynamic_cast", "const_cast", "reinterpret_cast",
    "thread_local", "char16_t", "char32_t", "not_eq", "and_eq", "or_eq", "xor_eq", "linux", "unix",
}  # fmt: skip
# What the names that the printer makes begin with.
_PREFIXES = (
    "row", "col", "inn", "in_", "in0", "in1", "in2", "in3", "wide_", "kept_", "staged_", "parts_",
    "block_", "tile_", "vector_",
)  # fmt: skip


def names_of(wanted: list[str], prefix: str) -> list[str]:
    """C++ names of tensors: as in Python, unless the language or the printer needs the word."""
    found: list[str] = []
    for text in wanted:
        name = prefix + text
        taken = name in RESERVED or name in found or name.startswith(_PREFIXES)
        if taken or (name[0] == "v" and name[1:2].isdigit()):
            name = f"{name}_data"
        while name in found:
            name += "_"
        found.append(name)
    return found
