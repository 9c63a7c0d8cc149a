"""Planning: from a dataset's fingerprint to the plans, in closed form (method 3). Needs no network and no torch."""

from segwright.planning.planner import PLANNERS, make_plans
from segwright.planning.slices import write_plan_folder

__all__ = ["PLANNERS", "make_plans", "write_plan_folder"]
