"""Published weights of the CSDI network, read into ours."""

import torch

from skdiffusion.nn.csdi import CSDINetwork

# Names of the published state dict, piece by piece, and ours.
_PUBLISHED_NAMES = {
    "embed_layer.weight": "features",
    "diffmodel.diffusion_embedding.projection": "step_embedding.linear",
    "diffmodel.residual_layers.": "blocks.",
    "diffmodel.input_projection": "input",
    "diffmodel.output_projection": "output",
    "diffusion_projection": "diffusion",
    "cond_projection": "side",
    "mid_projection": "mid",
    "output_projection": "output",
    "_layer.layers.0.": ".",
    "self_attn.in_proj_": "attention.project.",
    "self_attn.out_proj": "attention.out",
}


def load_csdi_checkpoint(path, *, n_heads=8):
    """Load published weights of CSDI.

    Parameters
    ----------
    path : str or path-like
        State dict saved by the authors' code, such as ``model.pth`` of their repository. The
        file is read as plain tensors: nothing in it is executed.
    n_heads : int, default=8
        Attention heads, which the file does not tell; 8 in all published settings.

    Returns
    -------
    network : CSDINetwork
        The network on the CPU, its other sizes those of the file. The 50 noise levels are those
        of the paper, which the file does not tell either.

    Raises
    ------
    ValueError
        If the file is damaged, holds anything but tensors, or is not such a network.
    OSError
        If the file cannot be opened.

    References
    ----------
    .. [1] Y. Tashiro, J. Song, Y. Song, S. Ermon, "CSDI: conditional score-based diffusion
       models for probabilistic time series imputation", NeurIPS 2021,
       https://arxiv.org/abs/2107.03502.

    Examples
    --------
    >>> from skdiffusion.nn import load_csdi_checkpoint
    >>> network = load_csdi_checkpoint("save/pretrained/model.pth")  # doctest: +SKIP
    """
    state = _read_tensors(path)
    try:
        n_features, n_feature_embedding = state["embed_layer.weight"].shape
        n_channels, n_inputs, _ = state["diffmodel.input_projection.weight"].shape
        n_embedding = state["diffmodel.diffusion_embedding.projection1.weight"].shape[1]
        n_side = state["diffmodel.residual_layers.0.cond_projection.weight"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is not a CSDI checkpoint: no usable tensor {error}.") from error
    if n_inputs != 2:
        raise ValueError(f"{path} is an unconditional CSDI model; only conditional ones load.")
    blocks = {name.split(".")[2] for name in state if name.startswith("diffmodel.residual_layers.")}
    network = CSDINetwork(
        n_features,
        n_layers=len(blocks),
        n_channels=n_channels,
        n_heads=n_heads,
        n_diffusion_embedding=n_embedding,
        n_time_embedding=n_side - n_feature_embedding - 1,
        n_feature_embedding=n_feature_embedding,
        generator=torch.Generator().manual_seed(0),
    )
    try:
        network.load_state_dict({_our_name(k): _as_linear(v) for k, v in state.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} is not the network of the CSDI paper: {error}") from error
    return network


def _read_tensors(path):
    """Read a state dict of finite tensors without running anything in the file."""
    try:
        # Mapped into memory, a file cannot ask for more of it than its own size.
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file raises whatever it runs into
        raise ValueError(
            f"{path} cannot be read as a checkpoint of plain tensors; it is damaged or holds "
            "other objects. Download it again from its source."
        ) from error
    if not isinstance(state, dict) or not all(map(_is_weight, state.values())):
        raise ValueError(f"{path} is not a state dict of finite, dense floating-point tensors.")
    return state


def _is_weight(value):
    """Tell whether a value is an ordinary weight: a repeated (stride 0) one could be huge."""
    ordinary = isinstance(value, torch.Tensor) and value.is_floating_point()
    return ordinary and value.is_contiguous() and bool(value.isfinite().all())


def _our_name(name):
    """Translate a name of the published state dict."""
    for published, ours in _PUBLISHED_NAMES.items():
        name = name.replace(published, ours)
    return name


def _as_linear(weight):
    """Take a 1x1 convolution as the linear map it is."""
    return weight.squeeze(-1) if weight.ndim == 3 else weight
