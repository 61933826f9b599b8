"""Small ops of many kinds in the field's convention: Model's class body and inputs, as text."""

OPS: dict[str, tuple[str, str]] = {
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
    "cumsum": (
        """\
    def forward(self, x):
        return torch.cumsum(x * 2, dim=1)""",
        "torch.randn(3, 8)",
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
    "bcast_outer": (
        """\
    def forward(self, x, y):
        return (x[:, None, :] - y[None, :, :]).abs().sum(-1)""",
        "torch.randn(5, 9), torch.randn(6, 9)",
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
    "clampdiv": (
        """\
    def __init__(self):
        super().__init__()
        self.c = nn.ConvTranspose3d(2, 4, 3)

    def forward(self, x):
        return torch.clamp(self.c(x), min=-1.0) / 2.0""",
        "torch.randn(2, 2, 4, 4, 4)",
    ),
    "hinge_bcast": (
        """\
    def forward(self, p, t):
        return torch.mean(torch.clamp(1 - p * t, min=0))""",
        "torch.randn(8, 8), torch.randint(0, 2, (8,)).float() * 2 - 1",
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
    "varnorm": (
        """\
    def forward(self, x):
        m = x.mean(dim=-1, keepdim=True)
        v = x.var(dim=-1, keepdim=True, unbiased=False)
        return (x - m) / torch.sqrt(v + 1e-5)""",
        "torch.randn(8, 5, 77)",
    ),
    "gated": (
        """\
    def forward(self, x):
        a, b = x.chunk(2, dim=-1)
        return a * torch.sigmoid(b)""",
        "torch.randn(8, 10)",
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
    "medium": (
        """\
    def forward(self, x, b):
        return F.hardswish(x + b) * F.mish(x)""",
        "torch.randn(64, 300), torch.randn(300)",
    ),
    "flatbig": (
        """\
    def forward(self, x, y):
        return F.mse_loss(F.elu(x), y), F.selu(x)""",
        "torch.randn(64, 3000), torch.randn(64, 3000)",
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
