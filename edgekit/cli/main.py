"""The `edgekit` command: the group, its common options, and the one place where an error becomes an exit code."""

import contextlib
import signal
import sys
import traceback
from types import FrameType
from typing import Any

import click

from edgekit import __version__
from edgekit.cli.bundle import COMMANDS as SIGNING
from edgekit.cli.compare import compare
from edgekit.cli.data import data
from edgekit.cli.deploy import COMMANDS as DEPLOYING
from edgekit.cli.device import device
from edgekit.cli.explain import explain
from edgekit.cli.gate import gate
from edgekit.cli.look import engines, inspect, targets
from edgekit.cli.make import demo, optimize
from edgekit.cli.pack import bundle
from edgekit.cli.profile import profile
from edgekit.cli.report import report
from edgekit.cli.runs import runs
from edgekit.errors import INTERRUPTED_EXIT_CODE, EdgekitError, printable

EPILOG = """\b
Exit codes: 0 ok, 1 internal error, 2 usage, 3 requirements not met, 4 device unreachable,
5 target incompatible, 6 input rejected, 7 measurement untrustworthy, 8 verification failed,
9 resource limit or crash, 10 busy, 130 interrupted."""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edgekit")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--cache",
    type=click.Path(file_okay=False),
    envvar="EDGEKIT_CACHE",
    help="Folder for built artifacts and engine libraries.  [default: ~/.cache/edgekit; env: EDGEKIT_CACHE]",
)
@click.option(
    "--ssh-config",
    type=click.Path(dir_okay=False),
    envvar="EDGEKIT_SSH_CONFIG",
    help="An ssh configuration in place of ~/.ssh/config.  [env: EDGEKIT_SSH_CONFIG]",
)
@click.pass_context
def cli(context: click.Context, verbose: bool, cache: str | None, ssh_config: str | None) -> None:
    """Take an ONNX model to a device: quantize, prove, measure, choose, ship."""
    context.obj = {"verbose": verbose, "cache": cache, "ssh_config": ssh_config}


COMMANDS = (
    *(demo, optimize, explain, report, profile, compare, gate, runs),
    *(bundle, *SIGNING, *DEPLOYING),
    *(inspect, targets, engines, data, device),
)
for command in COMMANDS:
    cli.add_command(command)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM, and SIGHUP of a terminal that was closed, unwind as Ctrl-C does, so that children die and drafts go."""
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line and exit with the documented code."""
    signal.signal(signal.SIGTERM, _terminated)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _terminated)
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(arguments: list[str]) -> int:
    """The exit code of `edgekit ARGUMENTS`."""
    verbose = any(word in ("-v", "--verbose") for word in arguments)
    try:
        result: Any = cli.main(arguments, prog_name="edgekit", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort as error:
        return _interrupted(error.__cause__)
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        click.echo(f"edgekit: {printable(error.format_message())}{_see_help(error)}", err=True)
        return error.exit_code
    except EdgekitError as error:
        if verbose:
            traceback.print_exc()
        click.echo(f"edgekit: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 0
    except Exception as error:  # noqa: BLE001 - the last boundary: no traceback for users, a documented code
        if verbose:
            traceback.print_exc()
        if isinstance(error, OSError) and _unwinding(error):
            return INTERRUPTED_EXIT_CODE  # the terminal is gone, and with it whom to tell
        text = printable(" ".join(f"{type(error).__name__}: {error}".split()))
        click.echo(f"edgekit: internal error: {text}; run with -v and report it", err=True)
        return 1


def _see_help(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"; see {context.command_path} --help" if context is not None else ""


def _unwinding(error: BaseException | None) -> bool:
    """Whether an error came of what was done about an interrupt."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _interrupted(error: BaseException | None) -> int:
    """Said in the interrupt's own words, where it has any."""
    words = str(error or "") or "nothing half-written was left"
    with contextlib.suppress(OSError):  # a terminal that was closed
        click.echo(f"edgekit: interrupted; {printable(words)}", err=True)
    return INTERRUPTED_EXIT_CODE
