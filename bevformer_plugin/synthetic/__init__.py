"""A small simulated town in nuScenes format: data for demonstrations and tests, made in minutes from a seed.

Read ``scenario`` (what happens), ``rendering`` and ``lidar`` (what the sensors see), ``world`` (what is written).
"""

from bevformer_plugin.synthetic.scenario import Scenario, build_scenario
from bevformer_plugin.synthetic.world import WorldSummary, create_synthetic_world

__all__ = ['Scenario', 'WorldSummary', 'build_scenario', 'create_synthetic_world']
