"""Ops without weights that reduce: norms, softmax, losses, sums and the largest of a row."""

REDUCTIONS: dict[str, tuple[str, str]] = {
    "frob": (
        """\
    def forward(self, x):
        return x / torch.norm(x, p="fro")""",
        "torch.randn(3, 4, 5, 6)",
    ),
    "rms4d": (
        """\
    def forward(self, x):
        r = torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-5)
        return x / r""",
        "torch.randn(3, 8, 5, 6)",
    ),
    "l1norm": (
        """\
    def forward(self, x):
        return x / torch.mean(torch.abs(x), dim=1, keepdim=True)""",
        "torch.randn(3, 80)",
    ),
    "l2norm": (
        """\
    def forward(self, x):
        return x / torch.norm(x, p=2, dim=1, keepdim=True)""",
        "torch.randn(3, 80)",
    ),
    "sumdim1": (
        """\
    def forward(self, x):
        return torch.sum(x, dim=1, keepdim=True)""",
        "torch.randn(3, 8, 100)",
    ),
    "maxdim1": (
        """\
    def forward(self, x):
        return torch.max(x, dim=1)[0]""",
        "torch.randn(3, 8, 100)",
    ),
    "mindim0": (
        """\
    def forward(self, x):
        return torch.min(x, dim=0)[0]""",
        "torch.randn(3, 8, 100)",
    ),
    "argmax": (
        """\
    def forward(self, x):
        return torch.argmax(x, dim=1)""",
        "torch.randn(3, 8, 100)",
    ),
    "ce_spatial": (
        """\
    def forward(self, x, t):
        return F.cross_entropy(x, t)""",
        "torch.randn(3, 5, 4, 4), torch.randint(0, 5, (3, 4, 4))",
    ),
    "ce_ignore": (
        """\
    def forward(self, x, t):
        return F.cross_entropy(x, t, ignore_index=2, reduction="none")""",
        "torch.randn(30, 5), torch.randint(0, 5, (30,))",
    ),
    "ce_1d": (
        """\
    def forward(self, x, t):
        return F.cross_entropy(x, t)""",
        "torch.randn(5), torch.randint(0, 5, ())",
    ),
    "triplet": (
        """\
    def __init__(self):
        super().__init__()
        self.l = torch.nn.TripletMarginLoss(margin=1.0)

    def forward(self, a, p, n):
        return self.l(a, p, n)""",
        "torch.randn(9, 33), torch.randn(9, 33), torch.randn(9, 33)",
    ),
    "cosloss": (
        """\
    def forward(self, x, y):
        return torch.mean(1 - F.cosine_similarity(x, y, dim=1))""",
        "torch.randn(9, 33), torch.randn(9, 33)",
    ),
    "kl": (
        """\
    def forward(self, x, y):
        return F.kl_div(torch.log(x), y, reduction="batchmean")""",
        "torch.rand(9, 33).softmax(-1), torch.rand(9, 33).softmax(-1)",
    ),
    "bcast_outer": (
        """\
    def forward(self, x, y):
        return (x[:, None, :] - y[None, :, :]).abs().sum(-1)""",
        "torch.randn(5, 9), torch.randn(6, 9)",
    ),
    "hinge_bcast": (
        """\
    def forward(self, p, t):
        return torch.mean(torch.clamp(1 - p * t, min=0))""",
        "torch.randn(8, 8), torch.randint(0, 2, (8,)).float() * 2 - 1",
    ),
    "varnorm": (
        """\
    def forward(self, x):
        m = x.mean(dim=-1, keepdim=True)
        v = x.var(dim=-1, keepdim=True, unbiased=False)
        return (x - m) / torch.sqrt(v + 1e-5)""",
        "torch.randn(8, 5, 77)",
    ),
    "softmax_all": (
        """\
    def forward(self, x):
        return torch.softmax(x, dim=0)""",
        "torch.randn(1000)",
    ),
    "logsumexp2": (
        """\
    def forward(self, x):
        x = torch.logsumexp(x, dim=1, keepdim=True)
        x = x * torch.sigmoid(x + 3) / 6
        return torch.clamp(x, -1, 1)""",
        "torch.randn(8, 4, 3, 3)",
    ),
    "bigrow": (
        """\
    def forward(self, x):
        return torch.log_softmax(x, -1), x.sum(-1)""",
        "torch.randn(3, 40000)",
    ),
    "flatbig": (
        """\
    def forward(self, x, y):
        return F.mse_loss(F.elu(x), y), F.selu(x)""",
        "torch.randn(64, 3000), torch.randn(64, 3000)",
    ),
}
