import argparse
from pathlib import Path

from yozh.app.commands.common import Parser, need


def add(parser: Parser) -> None:
    add = parser.add_argument
    add("policy", metavar="DIR|FILE", nargs="?", type=Path, help="a run's folder, or a policy.safetensors")
    add("--to", metavar="FORMAT", help="onnx or stablehlo")
    add("--out", metavar="FILE", type=Path, help="(policy.FORMAT beside the policy)")


def run(options: argparse.Namespace) -> int:
    need(options, "export", "policy", "to", example="yozh export runs/lander --to onnx")
    import yozh

    done = yozh.export(options.policy, to=options.to, out=options.out)
    print(f"{done.path}: {', '.join(done.inputs)} -> {', '.join(done.outputs)}")
    print(f"differs from the policy by {done.error:.1e} at most, on {done.compared} random observations")
    return 0
