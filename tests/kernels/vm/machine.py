"""One boot of a kernel under qemu: it runs a command on the host's own files and powers off."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm.initramfs import initramfs
from vm.packages import Kernel
from vm.suites import UnavailableError

QEMU: Final = "qemu-system-x86_64"
CPUS: Final = 2
MEMORY_MIB: Final = 2048
DEADLINE_S: Final = 2400.0
"""Of one boot and all that runs in it."""
BOOTS: Final = 4
"""Of one kernel; see EMULATORS_FAULT."""

# Tracepoints and the like are switched by patching the code of a running kernel, by way of a breakpoint.  Emulated, a
# processor may run that breakpoint when it has been taken out again, and nobody knows it any more: one boot in ten if
# each processor has a thread of its own.  With one for all it has not been seen.
EMULATORS_FAULT: Final = re.compile(r"Oops: int3: |int3: 0000 \[#")

TCG_ONE_THREAD: Final = "tcg,thread=single"
"""The processors take turns, so what one is patching another runs before or after; as fast, as tests keep one busy."""

OOPS: Final = re.compile(r"\bBUG: |kernel BUG at |Oops: |: 0000 \[#\d|general protection fault|Kernel panic")
OOPS_LINES: Final = 60
"""A trace, with its registers."""

# norandmaps: code that is always at the same addresses is translated once, not once a process.
KERNEL_ARGUMENTS: Final = "console=ttyS0 quiet panic=-1 norandmaps mitigations=off"

TCG, KVM = "tcg", "kvm"
SLOWNESS: Final = {TCG: 8, KVM: 2}
"""How much longer the tests' timeouts are inside."""


class MachineError(Exception):
    """The guest did not get to its end."""


@dataclass(frozen=True)
class Run:
    """A boot that came to its end; the rest is in the results folder."""

    status: int
    """Exit code of the command."""
    boot_s: float
    """From the start of the kernel to the command, by the guest's clock."""
    seconds: float
    """In all, by ours."""
    boots: int
    """More than one where the emulator failed; each goes on where the one before ended."""


def accelerator() -> str:
    """KVM counts only where the processor offers it, as /dev/kvm alone says little in a virtual machine."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    offered = flags is not None and {"vmx", "svm"} & set(flags[1].split())
    return KVM if offered and os.access("/dev/kvm", os.R_OK | os.W_OK) else TCG


def check_host() -> None:
    """UnavailableError where no machine can be made."""
    if platform.machine() != "x86_64":
        raise UnavailableError(
            f"the kernels are for x86_64 and would run this machine's programs ({platform.machine()})"
        )
    if os.geteuid() != 0:
        raise UnavailableError("needs root: inside, this machine's files are read with the rights of who started it")
    if shutil.which(QEMU) is None:
        raise UnavailableError(f"no {QEMU} here")


def run_in(kernel: Kernel, command: Sequence[str], folder: Path, environment: Mapping[str, str], results: Path) -> Run:
    """Boot, run it in `folder`, power off.  `results` is /run/tcptrace/results inside; output and console go there.

    Where the emulator fails it is run again, so it should leave out what it finds done in the results.
    """
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    script = f"cd {shlex.quote(str(folder))} && exec env -i {assignments} {shlex.join(command)}\n"
    (results / "command").write_text(script)
    (results / "initramfs").write_bytes(initramfs(kernel))
    began = time.monotonic()
    boots = 0
    while boots < BOOTS:
        boots += 1
        (results / "booted").unlink(missing_ok=True)
        _boot(kernel, results)
        if not emulator_failed(results):
            break
    (results / "initramfs").unlink()
    if not (results / "status").exists():
        raise MachineError(f"it ended early: {tail(results / 'qemu')}{last_words(results / 'console')}")
    status, boot_s = int((results / "status").read_text()), float((results / "booted").read_text())
    return Run(status, boot_s, time.monotonic() - began, boots)


def emulator_failed(results: Path) -> bool:
    """Whether it ended before the tests did, or before they began, for no reason of theirs."""
    if (results / "status").exists() or accelerator() != TCG:
        return False
    return not (results / "booted").exists() or bool(EMULATORS_FAULT.search(tail(results / "console", lines=200)))


def _boot(kernel: Kernel, results: Path) -> None:
    """Until it powers off."""
    with (results / "qemu").open("w") as said:
        qemu = subprocess.Popen(_qemu(kernel, results), stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            qemu.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise MachineError(f"not at its end after {DEADLINE_S:.0f} s, see {results}") from None
        finally:
            qemu.kill()
            qemu.wait()


def last_words(console: Path) -> str:
    """The end; of a kernel that broke, what it said first of that as well: the trace of who called whom follows it."""
    lines, end = tail(console, lines=1000).splitlines(), tail(console).splitlines()
    before = lines[: len(lines) - len(end)]
    first = next((number for number, line in enumerate(before) if OOPS.search(line)), len(before))
    return "\n".join([*before[first : first + OOPS_LINES], *end])


def tail(file: Path, lines: int = 40) -> str:
    if not file.exists():
        return ""
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])


def _qemu(kernel: Kernel, results: Path) -> list[str]:
    accel = accelerator()
    return [
        *(QEMU, "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-accel", TCG_ONE_THREAD if accel == TCG else KVM, "-cpu", "max"),
        *("-smp", str(CPUS), "-m", str(MEMORY_MIB)),
        *("-serial", f"file:{results / 'console'}"),
        *("-kernel", str(kernel.image), "-initrd", str(results / "initramfs"), "-append", KERNEL_ARGUMENTS),
        # multidevs: the host's root may be several file systems, with the same inode numbers.
        *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
        *("-fsdev", f"local,id=results,path={results},security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=results,mount_tag=results"),
    ]
