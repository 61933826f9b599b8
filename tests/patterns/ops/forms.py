"""Ops of many forms: dtypes, layouts, several outputs, and what is neither layer nor reduction."""

FORMS: dict[str, tuple[str, str]] = {
    "cumsum": (
        """\
    def forward(self, x):
        return torch.cumsum(x * 2, dim=1)""",
        "torch.randn(3, 8)",
    ),
    "multiout": (
        """\
    def forward(self, x):
        return x.mean(1), x.std(1), [x * 2][0], x.sum()""",
        "torch.randn(9, 33)",
    ),
    "listout": (
        """\
    def forward(self, x):
        return [x + 1, torch.softmax(x, 0)]""",
        "torch.randn(9, 33)",
    ),
    "noncontig": (
        """\
    def forward(self, x):
        return torch.softmax(x * 2, -1)""",
        "torch.randn(33, 9).t()",
    ),
    "bf16": (
        """\
    def forward(self, x):
        return torch.softmax(x * 2, -1)""",
        "torch.randn(33, 9).bfloat16()",
    ),
    "f16": (
        """\
    def forward(self, x):
        return F.layer_norm(x, (9,)) + 1""",
        "torch.randn(33, 9).half()",
    ),
    "f64": (
        """\
    def forward(self, x):
        return F.gelu(F.layer_norm(x, (9,))) + torch.tanh(x)""",
        "torch.randn(33, 9).double()",
    ),
    "int": (
        """\
    def forward(self, x):
        return x * 2 + 1, x.sum(1), x.float() / 3, x // 3, x % 3""",
        "torch.randint(-9, 9, (33, 9))",
    ),
    "boolmask": (
        """\
    def forward(self, x, m):
        return x.masked_fill(m, 0.0).sum(-1), (x > 0) & m""",
        "torch.randn(33, 9), torch.rand(33, 9) > 0.5",
    ),
    "buffer": (
        """\
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.rand(9))
        self.k = 3

    def forward(self, x):
        return (x * self.scale).sum(-1) / self.k""",
        "torch.randn(33, 9)",
    ),
    "concat": (
        """\
    def forward(self, x, y):
        return torch.cat([x * 2, F.relu(y)], dim=1) + 1""",
        "torch.randn(5, 4), torch.randn(5, 3)",
    ),
    "newgelu": (
        """\
    def forward(self, x):
        return (
            0.5
            * x
            * (
                1.0
                + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))
            )
        )""",
        "torch.randn(50, 40)",
    ),
    "mv": (
        """\
    def forward(self, a, b):
        return torch.matmul(a, b) + 1""",
        "torch.randn(8, 33), torch.randn(33, 1)",
    ),
    "diag": (
        """\
    def forward(self, a, b):
        return torch.diag(a) @ b""",
        "torch.randn(8), torch.randn(8, 5)",
    ),
    "scalarmul": (
        """\
    def forward(self, a, s):
        return a * s""",
        "torch.randn(8, 5), 3.14",
    ),
    "gated": (
        """\
    def forward(self, x):
        a, b = x.chunk(2, dim=-1)
        return a * torch.sigmoid(b)""",
        "torch.randn(8, 10)",
    ),
    "medium": (
        """\
    def forward(self, x, b):
        return F.hardswish(x + b) * F.mish(x)""",
        "torch.randn(64, 300), torch.randn(300)",
    ),
}
