"""Ops with weights: products, convolutions, norms, recurrent layers, attention, and the like."""

LAYERS: dict[str, tuple[str, str]] = {
    "conv_relu_bias": (
        """\
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.bias = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x):
        return torch.relu(self.conv(x)) + self.bias""",
        "torch.randn(2, 3, 10, 10)",
    ),
    "bn_train": (
        """\
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return F.relu(self.bn(self.c(x)))""",
        "torch.randn(4, 3, 8, 8)",
    ),
    "bn_eval": (
        """\
    def __init__(self):
        super().__init__()
        self.bn = nn.BatchNorm1d(8)
        self.bn.eval()

    def forward(self, x):
        return F.gelu(self.bn(x)) * 2""",
        "torch.randn(4, 8)",
    ),
    "lstm": (
        """\
    def __init__(self):
        super().__init__()
        self.l = nn.LSTM(8, 16, 2, batch_first=True)
        self.f = nn.Linear(16, 4)

    def forward(self, x):
        y, _ = self.l(x)
        return self.f(y[:, -1, :])""",
        "torch.randn(2, 5, 8)",
    ),
    "gru": (
        """\
    def __init__(self):
        super().__init__()
        self.l = nn.GRU(8, 16)

    def forward(self, x, h):
        y, h = self.l(x, h)
        return y, h""",
        "torch.randn(5, 2, 8), torch.randn(1, 2, 16)",
    ),
    "attention": (
        """\
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.o = nn.Linear(16, 16)
        self.h = 4

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.qkv(x).split(C, dim=2)
        q = q.view(B, T, self.h, C // self.h).transpose(1, 2)
        k = k.view(B, T, self.h, C // self.h).transpose(1, 2)
        v = v.view(B, T, self.h, C // self.h).transpose(1, 2)
        a = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        m = torch.tril(torch.ones(T, T)).view(1, 1, T, T)
        a = a.masked_fill(m == 0, float("-inf"))
        a = F.softmax(a, dim=-1)
        y = (a @ v).transpose(1, 2).contiguous().view(B, T, C)
        return self.o(y)""",
        "torch.randn(2, 6, 16)",
    ),
    "mha": (
        """\
    def __init__(self):
        super().__init__()
        self.a = nn.MultiheadAttention(16, 4)
        self.n = nn.LayerNorm(16)

    def forward(self, x):
        y, _ = self.a(x, x, x)
        return self.n(x + y)""",
        "torch.randn(6, 2, 16)",
    ),
    "embedding": (
        """\
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(10, 16)
        self.n = nn.LayerNorm(16)

    def forward(self, i):
        return self.n(self.e(i)).mean(1)""",
        "torch.randint(0, 10, (3, 7))",
    ),
    "pooling": (
        """\
    def __init__(self):
        super().__init__()
        self.p = nn.MaxPool2d(2)
        self.q = nn.AvgPool2d(2)

    def forward(self, x):
        return self.q(self.p(x)) + 1.0""",
        "torch.randn(2, 3, 8, 8)",
    ),
    "mlp": (
        """\
    def __init__(self):
        super().__init__()
        self.l = nn.Sequential(
            nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4)
        )

    def forward(self, x):
        return torch.sigmoid(self.l(x))""",
        "torch.randn(8, 16)",
    ),
    "matmul_sub_mul_relu": (
        """\
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(16, 32)

    def forward(self, x):
        x = self.l(x)
        x = x - 2.0
        x = x * 1.5
        return torch.relu(x)""",
        "torch.randn(8, 16)",
    ),
    "gemm_gn_min_bias": (
        """\
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(16, 32)
        self.g = nn.GroupNorm(4, 32)
        self.b = nn.Parameter(torch.randn(1, 32, 1, 1))

    def forward(self, x):
        x = self.g(self.l(x))
        x = torch.min(x, dim=1, keepdim=True)[0]
        return x + self.b""",
        "torch.randn(8, 16)",
    ),
    "linear_sum_max_mean_lse": (
        """\
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(16, 32)

    def forward(self, x):
        x = self.l(x)
        x = torch.sum(x, dim=1, keepdim=True)
        x = torch.max(x, dim=1, keepdim=True)[0]
        x = torch.mean(x, dim=1, keepdim=True)
        x = torch.logsumexp(x, dim=1, keepdim=True)
        x = torch.logsumexp(x, dim=1, keepdim=True)
        return x""",
        "torch.randn(8, 16)",
    ),
    "gemm_div_sum_scale": (
        """\
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(32, 16))

    def forward(self, x):
        x = torch.matmul(x, self.w.T)
        x = x / 2
        x = torch.sum(x, dim=1, keepdim=True)
        return x * 1.5""",
        "torch.randn(8, 16)",
    ),
    "convt_gap_lse": (
        """\
    def __init__(self):
        super().__init__()
        self.c = nn.ConvTranspose2d(3, 8, 3)
        self.b = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x):
        x = self.c(x)
        x = torch.mean(x, dim=(2, 3), keepdim=True)
        x = x + self.b
        x = torch.logsumexp(x, dim=1, keepdim=True)
        x = torch.sum(x, dim=(2, 3))
        return x * 10.0""",
        "torch.randn(2, 3, 6, 6)",
    ),
    "conv_softmax_chan": (
        """\
    def __init__(self):
        super().__init__()
        self.c = nn.Conv3d(3, 8, 3)

    def forward(self, x):
        x = self.c(x)
        x = torch.min(x, dim=2)[0]
        return torch.softmax(x, dim=1)""",
        "torch.randn(2, 3, 6, 6, 6)",
    ),
    "instnorm_div": (
        """\
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3)
        self.n = nn.InstanceNorm2d(8)

    def forward(self, x):
        return self.n(self.c(x)) / 2.0""",
        "torch.randn(2, 3, 8, 8)",
    ),
    "gn_affine": (
        """\
    def __init__(self):
        super().__init__()
        self.n = nn.GroupNorm(2, 8)
        nn.init.normal_(self.n.weight)
        nn.init.normal_(self.n.bias)

    def forward(self, x):
        return F.silu(self.n(x))""",
        "torch.randn(2, 8, 5, 5)",
    ),
    "ln_3d": (
        """\
    def __init__(self):
        super().__init__()
        self.n = nn.LayerNorm((4, 5, 6))
        nn.init.normal_(self.n.weight)
        nn.init.normal_(self.n.bias)

    def forward(self, x):
        return self.n(x)""",
        "torch.randn(3, 4, 5, 6)",
    ),
    "swiglu": (
        """\
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(9, 12)
        self.b = nn.Linear(9, 12)
        self.c = nn.Linear(12, 9)

    def forward(self, x):
        return self.c(F.silu(self.a(x)) * self.b(x)) + x""",
        "torch.randn(5, 9)",
    ),
    "residual": (
        """\
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(4, 4, 3, padding=1)
        self.b1 = nn.BatchNorm2d(4)
        self.c2 = nn.Conv2d(4, 4, 3, padding=1)
        self.b2 = nn.BatchNorm2d(4)

    def forward(self, x):
        y = F.relu(self.b1(self.c1(x)), inplace=True)
        y = self.b2(self.c2(y))
        y += x
        return F.relu(y)""",
        "torch.randn(2, 4, 6, 6)",
    ),
    "dropout_train": (
        """\
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(9, 12)
        self.d = nn.Dropout(0.2)

    def forward(self, x):
        return F.softmax(self.d(self.l(x)), dim=1)""",
        "torch.randn(5, 9)",
    ),
    "view_flatten": (
        """\
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(4 * 6 * 6, 12)

    def forward(self, x):
        x = F.relu(x)
        x = x.view(x.size(0), -1)
        return self.l(x)""",
        "torch.randn(5, 4, 6, 6)",
    ),
    "clampdiv": (
        """\
    def __init__(self):
        super().__init__()
        self.c = nn.ConvTranspose3d(2, 4, 3)

    def forward(self, x):
        return torch.clamp(self.c(x), min=-1.0) / 2.0""",
        "torch.randn(2, 2, 4, 4, 4)",
    ),
    "groupnorm_mean": (
        """\
    def __init__(self):
        super().__init__()
        self.c = nn.Conv3d(3, 8, 3)
        self.g = nn.GroupNorm(4, 8)

    def forward(self, x):
        return self.g(self.c(x)).mean(dim=[1, 2, 3, 4])""",
        "torch.randn(2, 3, 6, 6, 6)",
    ),
}
