"""Ways to write attention that people use, each a reference of small and odd sizes."""

from tests.patterns.workshop import function, reference

SCORES = "q @ k.transpose(-2, -1)"
INF = "float('-inf')"
EINSUM = "torch.einsum('{}', {})"
# Two sequences, four heads of 8; queries of 20 rows and keys of 45.
HEADS_FIRST = "torch.randn(2, 4, 20, 8), torch.randn(2, 4, 45, 8), torch.randn(2, 4, 45, 8)"
ROWS_FIRST = "torch.randn(2, 20, 4, 8), torch.randn(2, 45, 4, 8), torch.randn(2, 45, 4, 8)"
SHARED = "torch.randn(2, 6, 20, 8), torch.randn(2, 2, 45, 8), torch.randn(2, 2, 45, 8)"
SHARED_ROWS_FIRST = SHARED.replace("6, 20", "20, 6").replace("2, 45", "45, 2")
GROUPED = SHARED.replace("6, 20", "2, 3, 20")
ONE_KEY_HEAD = "torch.randn(2, 6, 20, 8), torch.randn(2, 45, 8), torch.randn(2, 45, 8)"
# Heads joined with the batch, and windows: four of each image, three heads.
JOINED = "torch.randn(6, 20, 8), torch.randn(6, 45, 8), torch.randn(6, 45, 8)"
WINDOWS = ", ".join(["torch.randn(8, 3, 49, 8)"] * 3)
IMAGES = "torch.randn(2, 50, 8), torch.randn(2, 8, 50), torch.randn(2, 12, 50)"
HALVES = ", ".join(f"torch.randn(2, 4, {rows}, 8).bfloat16()" for rows in (20, 45, 45))


def einsums(scores: str, values: str, masked: str = "{} * 0.3") -> str:
    """Attention by two equations."""
    made = masked.format(EINSUM.format(scores, "q, k"))
    return f"(lambda a: {EINSUM.format(values, 'a, v')})(torch.softmax({made}, -1))"


def weighted(scores: str) -> str:
    """The softmax of scores over the keys, and the values weighted by it."""
    return f"torch.softmax({scores}, -1) @ v"


def _repeated(how: str) -> str:
    return f"(lambda k, v: {weighted(SCORES)})({how.format('k')}, {how.format('v')})"


_EXPANDED = "{}[:, :, None, :, :].expand(2, 2, 3, 45, 8).reshape(2, 6, 45, 8)"
_TURNED = (
    "(lambda q, k, v: (" + weighted(SCORES) + ").transpose(1, 2).reshape(2, 20, 48))("
    "q.transpose(1, 2), k.repeat_interleave(3, dim=2).transpose(1, 2), "
    "v.repeat_interleave(3, dim=2).transpose(1, 2))"
)
_SHIFTED = (
    f"torch.softmax((({SCORES} * 0.3 + b.unsqueeze(0)).view(2, 4, 3, 49, 49) "
    "+ m.unsqueeze(1).unsqueeze(0)).view(-1, 3, 49, 49), -1) @ v"
)
_SUNK = (
    "(lambda s: torch.softmax(s - s.max(dim=-1, keepdim=True).values, -1)[..., :-1] @ v)"
    f"(torch.cat([{SCORES} * 0.3, sink.reshape(1, -1, 1, 1).expand(2, -1, 20, -1)], dim=-1))"
)
_TABLE = """    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(13 * 13, 3))
        at = torch.stack(torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij"))
        at = at.flatten(1)
        apart = (at[:, :, None] - at[:, None, :]).permute(1, 2, 0) + 6
        self.register_buffer("index", apart[..., 0] * 13 + apart[..., 1])

    def forward(self, q, k, v):
        bias = self.table[self.index.view(-1)].view(49, 49, -1).permute(2, 0, 1).contiguous()
        scores = (q * 0.3) @ k.transpose(-2, -1) + bias.unsqueeze(0)
        return (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(8, 49, 24)"""

WAYS = {
    "einsum, rows first": function(
        "q, k, v", einsums("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd"), ROWS_FIRST
    ),
    "einsum, heads last": function(
        "q, k, v, m", einsums("bqhd,bkhd->bqhk", "bqhk,bkhd->bqhd", "{} * 0.3 + m[:, None]"),
        f"{ROWS_FIRST}, torch.randn(20, 45)",
    ),
    "einsum, dots": function(
        "q, k, v", einsums("...qd,...kd->...qk", "...qk,...kd->...qd"), HEADS_FIRST
    ),
    "einsum, groups": function(
        "q, k, v", einsums("bhgqd,bhkd->bhgqk", "bhgqk,bhkd->bhgqd"), GROUPED
    ),
    "einsum, one head of keys": function(
        "q, k, v", einsums("bhqd,bkd->bhqk", "bhqk,bkd->bqhd"), ONE_KEY_HEAD
    ),
    "groups by a product": function(
        "q, k, v",
        f"(lambda q, k, v: ({weighted(SCORES)}).reshape(2, 6, 20, 8))"
        "(q.view(2, 2, 3, 20, 8), k[:, :, None], v[:, :, None])", SHARED,
    ),
    "interleaved": function("q, k, v", _repeated("{}.repeat_interleave(3, dim=1)"), SHARED),
    "interleaved, rows first": function("q, k, v", _TURNED, SHARED_ROWS_FIRST),
    "expanded": function("q, k, v", _repeated(_EXPANDED), SHARED),
    "expanded for the call": function(
        "q, k, v",
        f"F.scaled_dot_product_attention(q, {_EXPANDED.format('k')}, {_EXPANDED.format('v')})",
        SHARED,
    ),
    "shifted windows": function(
        "q, k, v, b, m", _SHIFTED, f"{WINDOWS}, torch.randn(3, 49, 49), torch.randn(4, 49, 49)"
    ),
    "joined heads": function(
        "q, k, v, m",
        "torch.bmm(torch.softmax((torch.bmm(q, k.transpose(1, 2)).view(2, 3, 20, 45) + m)"
        ".view(6, 20, 45), -1), v)",
        f"{JOINED}, torch.randn(2, 1, 1, 45)",
    ),
    "a table of biases": reference(_TABLE, WINDOWS),
    "biases by distance": function(
        "q, k, v, b, m", weighted(f"({SCORES} * 0.3 + b).masked_fill(m, {INF})"),
        f"{HEADS_FIRST}, torch.rand(4, 1, 1) * torch.arange(45), torch.ones(20, 45).triu(5).bool()",
    ),
    "biases in the product": function(
        "q, k, v, b", "torch.bmm(torch.softmax(b.baddbmm(q, k.transpose(1, 2), beta=0.5, "
        "alpha=0.3), -1), v)",
        f"{JOINED}, torch.randn(6, 1, 45)",
    ),
    "a sliding window": function(
        "q, k, v, m", weighted(f"({SCORES} * 0.3).masked_fill(~m, {INF})"),
        f"{HEADS_FIRST}, torch.ones(20, 45).tril(9).triu(-3).bool()",
    ),
    "capped": function(
        "q, k, v, m", weighted(f"5.0 * torch.tanh({SCORES} * 0.8 / 5.0) + m"),
        f"{HEADS_FIRST}, torch.full((20, 45), {INF}).triu(6)",
    ),
    "a sink": function("q, k, v, sink", _SUNK, f"{HEADS_FIRST}, torch.randn(4)"),
    "padding": function(
        "q, k, v, m", weighted(f"({SCORES} * 0.3).masked_fill(~m[:, None, None, :], {INF})"),
        f"{HEADS_FIRST}, torch.arange(45) < torch.tensor([[45], [31]])",
    ),
    "a difference": function(
        "q, k, v, m", weighted(f"{SCORES} / 3 - 1e4 * (1.0 - m)"),
        f"{HEADS_FIRST}, torch.ones(20, 45).tril(8)",
    ),
    "padding and biases": function(
        "q, k, v, b, m", weighted(f"torch.where(m, {SCORES} * 0.3, {INF}) + b"),
        f"{HEADS_FIRST}, torch.randn(1, 4, 20, 45), (torch.rand(2, 1, 1, 45) < 0.8)",
    ),
    "softmax in float": function(
        "q, k, v, m",
        f"F.softmax({SCORES} * 0.3 + m, dim=-1, dtype=torch.float32).to(q.dtype) @ v",
        f"{HALVES}, torch.full((20, 45), {INF}).triu(6).bfloat16()",
    ),
    "scores in float": function(
        "q, k, v, m",
        f"torch.softmax(({SCORES}).float() * 0.3 + m, dim=-1).type_as(v) @ v",
        f"{HALVES}, torch.full((20, 45), {INF}).triu(6)",
    ),
    "all in float": function(
        "q, k, v",
        "(torch.softmax(q.float() * 0.3 @ k.float().transpose(-2, -1), -1) @ v.float())"
        ".to(q.dtype)", HALVES,
    ),
    "products in float": function(
        "q, k, v", "torch.softmax(q.float() @ k.float().transpose(-2, -1) / 3, -1).to(v.dtype) @ v",
        HALVES,
    ),
    "channels first": function(
        "q, k, v", "torch.bmm(v, torch.softmax(torch.bmm(q, k) * 0.3, dim=2).permute(0, 2, 1))",
        IMAGES,
    ),
    "queries of all batches": function(
        "q, k, v", weighted(f"({SCORES}) * 0.3"), HEADS_FIRST.replace("(2, 4, 20", "(1, 4, 20")
    ),
}  # fmt: skip
