"""A light command line: `--help` and `import edgekit` load no engine, no onnx, no numpy."""

import subprocess
import sys

import pytest

# All that `edgekit --help` may load beyond the standard library: grow this list knowingly.
LIGHT = {"click", "edgekit"}

PROBE = """
import sys
before = set(sys.modules)
{code}
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(" ".join(sorted(name for name in names if name not in sys.stdlib_module_names and not name.startswith("_"))))
"""


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.splitlines() else set()


def test_help_loads_click_and_nothing_else() -> None:
    assert loaded("from edgekit.cli.main import run_cli\nassert run_cli(['--help']) == 0") <= LIGHT


@pytest.mark.parametrize(
    "command",
    [
        "optimize",
        "explain",
        "gate",
        "runs",
        "report",
        "profile",
        "compare",
        "demo",
        "inspect",
        "targets",
        "engines",
        "data",
        "device",
        "bundle",
        "keys",
        "sign",
        "verify",
        "deploy",
        "rollback",
        "status",
    ],
)
def test_help_of_a_command_is_light_too(command: str) -> None:
    assert loaded(f"from edgekit.cli.main import run_cli\nassert run_cli(['{command}', '--help']) == 0") <= LIGHT


def test_import_edgekit_loads_nothing() -> None:
    assert loaded("import edgekit") <= {"edgekit"}


def test_the_check_sees_a_heavy_import() -> None:
    """Negative control."""
    assert "numpy" in loaded("import edgekit.data.read")


def test_the_flow_itself_needs_no_engine_in_the_main_process() -> None:
    """Everything that touches a model runs in children: the parent has neither onnx nor an engine."""
    assert not loaded(
        "import edgekit; edgekit.optimize; edgekit.inspect; edgekit.profile; edgekit.compare; edgekit.check_data"
    ) & {
        "onnx",
        "onnxruntime",
        "openvino",
        "nncf",
        "numpy",
    }


def test_the_public_names_are_these() -> None:
    import edgekit

    assert set(edgekit.__all__) == {
        "DataCheck",
        "EdgekitError",
        "LatencyBudget",
        "Options",
        "Prefer",
        "Profile",
        "Reach",
        "Requirements",
        "Run",
        "Scenario",
        "__version__",
        "check_data",
        "compare",
        "inspect",
        "optimize",
        "profile",
    }
    for name in edgekit.__all__:
        assert getattr(edgekit, name) is not None
    with pytest.raises(AttributeError):
        _ = edgekit.nonsense  # type: ignore[attr-defined]
