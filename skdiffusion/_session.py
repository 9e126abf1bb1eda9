"""What a session of torch may have set, and computations must not depend on."""

from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def plain_torch():
    """Run what is inside with the defaults of torch, whatever was set outside.

    Gradients and the default device are settings of a thread. The default type is one of the
    process: where it is not float32, it is so for other threads, too, until the block ends.

    Examples
    --------
    >>> import torch
    >>> from skdiffusion._session import plain_torch
    >>> with torch.no_grad(), plain_torch():
    ...     torch.is_grad_enabled()
    True
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
