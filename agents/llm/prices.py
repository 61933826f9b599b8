"""What tokens cost: prices from a data file, which a user's own may replace row by row."""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from knowledge.errors import BadInput
from knowledge.opgraph import Frozen

SHIPPED = Path(__file__).parent / "prices.toml"
VARIABLE = "KERNELWRIGHT_PRICES"
# Providers sell one model under several names: with the day it was released, or as the latest.
_RELEASE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)$")


# A provider and its model, or a star for all others of that provider.
Name = Annotated[str, Field(pattern=r"^\w+:(\*|[^*\s]+)$")]


class Price(Frozen):
    """USD per million tokens; `as_of` is the month in which its provider said so."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    as_of: str = ""

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6


class Prices(Frozen):
    """A price list: a row a model, and `provider:*` for all others of a provider.

    `as_of` is the month of the rows that name none.
    """

    as_of: str = ""
    sources: tuple[str, ...] = ()
    models: dict[Name, Price] = Field({})

    @classmethod
    def load(cls, own: Path | None = None) -> "Prices":
        """The list that comes with Kernelwright, under the user's own rows.

        Args:
            own: the task's file; None means the one that the environment names, if any.

        Raises:
            BadInput: a file that cannot be read, or is not a price list.
        """
        named = own or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
        shipped = _read(SHIPPED, str(SHIPPED))
        if named is None:
            return shipped
        rows = _read(named, "prices" if own else VARIABLE).models
        return shipped.model_copy(update={"models": {**shipped.models, **rows}})

    def of(self, model: str) -> Price | None:
        """A model's price; None where nobody told it."""
        provider = model.partition(":")[0]
        for name in (model, _RELEASE.sub("", model), f"{provider}:*"):
            if name in self.models:
                return self.models[name]
        return None

    def usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """What a call costs; None where the price is unknown."""
        price = self.of(model)
        return None if price is None else price.usd(input_tokens, output_tokens)


def _read(path: Path, where: str) -> Prices:
    form = (
        'A row under [models] reads "openai:gpt-5" = { input = 1.25, output = 10.0 }; its name is '
        '"provider:model", or "provider:*" for all others.'
    )
    try:
        return Prices.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise BadInput(where, f"{path} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc'])).removesuffix('.[key]')}: {first['msg']}"
        raise BadInput(where, f"{path} is not a price list ({told}).", form) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(where, f"{path} is not a price list ({error}).", form) from error
