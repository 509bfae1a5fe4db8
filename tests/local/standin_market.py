"""`megatron dev` with stand-ins for the market's own parts, run as a script with JSON: see `market.Market.start`."""

import json
import sys
from pathlib import Path

from app.local.supervisor import Options, Plan, StandIn, supervise

told = json.loads(sys.argv[1])
options = Options(**{**told["options"], "data_dir": Path(told["options"]["data_dir"])})
stand_in = told["stand_in"]
plan = Plan(
    once=tuple((name, what, tuple(argv)) for name, what, argv in told["once"]),
    api=tuple(told["api"]),
    prices=tuple(told["prices"]) if told["prices"] else None,
    oracle=tuple(told["oracle"]) if told["oracle"] else None,
    stand_in=StandIn(tuple(stand_in["argv"]), stand_in["port"], stand_in["env"]) if stand_in else None,
    traders=tuple(told["traders"]) if told["traders"] else None,
    web=tuple(told["web"]) if told["web"] else None,
)
sys.exit(supervise(options, plan))
