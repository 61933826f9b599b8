"""An evaluation on more than one machine; `cluster.py` alone speaks to Ray."""

from importlib.util import find_spec

from knowledge.errors import BadInput


def require_ray(where: str) -> None:
    """Complain where Ray is not installed.

    Args:
        where: the option or command that needs it.

    Raises:
        BadInput: it is not.
    """
    if find_spec("ray") is None:
        mend = "Install it: pip install 'kernelwright[ray]', or ray."
        raise BadInput(where, "needs the package ray.", mend)
