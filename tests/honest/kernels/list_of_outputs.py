"""Several outputs, integers among them, as a list instead of a tuple."""

import torch

AGAINST = "pair"


class ModelNew(torch.nn.Module):
    def forward(self, x):
        places = x.argmax(dim=1)
        return [x.gather(1, places[:, None])[:, 0], places]
