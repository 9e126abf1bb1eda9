"""Mathematics of diffusions: processes, denoisers in closed form, solvers, likelihood."""

from skdiffusion.diffusion.sde import SDE, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE

__all__ = ["SDE", "VESDE", "VPSDE", "CosineSDE", "FlowSDE", "SubVPSDE"]
