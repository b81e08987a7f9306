"""The kernel's out-of-memory reports, from Linux 2.6 to 6.18.

Source of the wordings: mm/oom_kill.c and mm/memcontrol.c. 2.6 wrote `kill process N (comm) score S or a child` and `vsz:`;
3.x `Kill process ... or sacrifice child` and a separate `Killed process` line; RHEL 6 `Killed process N, UID n, (comm)`;
5.0 put constraint, cgroups and task on one `oom-kill:` line; later 5.x gave the `Killed process` line UID, pgtables and
oom_score_adj. The task table is read by its header, because its columns differ from kernel to kernel.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from agentscope.model import Reading, Value
from agentscope.readers._late import late
from agentscope.readers._mark import Mark, Weight
from agentscope.readers._passage import Passage, passage_of

KINDS = frozenset({"kmsg", "systemd", "k8s", "docker"})
PAGE_KB = 4

_INVOKED = late(
    r"(?P<comm>.{1,64}?) invoked oom-killer: gfp_mask=(?P<gfp>0x[0-9a-fA-F]{1,16})(?:\([^)]{0,200}\))?"
    r"(?:,.{0,80}?)?, ?order=(?P<order>-?\d{1,3})(?:.{0,80}?(?:oom_score_adj|oom_scoe_adj|oom_adj|oomkilladj)=(?P<adj>-?\d{1,5}))?"
)
_INVOKED_MEMCG = late(r"task=(?P<comm>.{1,64}?) pid=(?P<pid>\d{1,10}) invoked memcg oom killer")
_WHERE = late(
    r"(?:CPU: \d{1,5} (?:UID: \d{1,10} )?)?P(?:ID|id): (?P<pid>\d{1,10})[, ]{1,2}[Cc]omm: (?P<comm>.{1,32}?) (?:Not tainted|Tainted: .{1,80}?)"
    r"[ :]{1,3}(?P<kernel>\d\.\d{1,3}[^\s)]{0,100})"
)
_TASK_IN = late(r"Task in (?P<task>/\S{0,1000}?) killed as a result of limit of (?P<limit>/\S{0,1000})")
_USAGE = late(r"(?<!\+swap: )memory: usage (?P<usage>\d{1,20})kB, limit (?P<limit>\d{1,20})kB, failcnt (?P<failcnt>\d{1,20})")
_CONSTRAINT = late(r"oom-kill:constraint=(?P<constraint>CONSTRAINT_\w{1,20})(?P<rest>.{0,3000})")
_CHOSEN = late(r"[Kk]ill process (?P<pid>\d{1,10}) \((?P<comm>.{0,64}?)\) score (?P<score>\d{1,10})")
_KILLED = late(
    r"Killed process (?P<pid>\d{1,10})(?:,? UID (?P<uid>\d{1,10}),?)?[ ,]{0,3}\((?P<comm>.{0,64}?)\)(?=[\s.,:]|$)[.,:]?(?P<rest>.{0,600})"
)
_SIZE = {
    "total_vm_kb": late(r"\b(?:total-vm|vsz):(\d{1,20})kB"),
    "anon_rss_kb": late(r"\banon-rss:(\d{1,20})kB"),
    "file_rss_kb": late(r"\bfile-rss:(\d{1,20})kB"),
    "shmem_rss_kb": late(r"\bshmem-rss:(\d{1,20})kB"),
    "uid": late(r"\bUID[: ](\d{1,10})\b"),
    "pgtables_kb": late(r"\bpgtables:(\d{1,20})kB"),
    "oom_score_adj": late(r"\boom_score_adj:(-?\d{1,5})\b"),
}
_REAPED = late(r"oom_reaper: reaped process (?P<pid>\d{1,10}) \((?P<comm>.{0,64}?)\)")
_PANIC = late(r"Kernel panic - not syncing: (?P<panic>(?:Out of memory|out of memory|System is deadlocked on memory).{0,200})")
_TABLE_HEADER = late(r"\[ {0,4}pid {0,4}\] {1,4}uid {1,4}tgid .{4,120}name\s*$")
_TABLE_ROW = late(r"\[ {0,8}(?P<pid>\d{1,10})\](?P<rest>(?: {1,20}-?\d{1,20}){6,12}) (?P<name>\S.{0,32})$")
_MEMCG_FRAMES = ("mem_cgroup_out_of_memory", "mem_cgroup_oom", "try_charge_memcg", "mem_cgroup_handle_over_high")
_GROUP_KILL = "are going to be killed due to memory.oom.group set"


class OomTask(Value, frozen=True):
    """One row of the kernel's task table; None where this kernel's table has no such column."""

    pid: int
    comm: str
    uid: int
    total_vm_kb: int | None
    rss_kb: int | None
    oom_score_adj: int | None


class OomReport(Value, frozen=True):
    """One kill as the kernel reported it; without a victim where the report names none (a panic, a cut log)."""

    pid: int | None = None
    comm: str | None = None
    uid: int | None = None
    total_vm_kb: int | None = None
    anon_rss_kb: int | None = None
    file_rss_kb: int | None = None
    shmem_rss_kb: int | None = None
    pgtables_kb: int | None = None
    oom_score_adj: int | None = None
    score: int | None = None
    chosen_pid: int | None = None
    chosen_comm: str | None = None
    constraint: str | None = None
    global_oom: bool | None = None
    memcg: bool = False
    oom_memcg: str | None = None
    limit_memcg: str | None = None
    task_memcg: str | None = None
    usage_kb: int | None = None
    limit_kb: int | None = None
    failcnt: int | None = None
    trigger_comm: str | None = None
    trigger_pid: int | None = None
    gfp_mask: str | None = None
    order: int | None = None
    kernel: str | None = None
    manual: bool = False
    group: bool = False
    panic: str | None = None
    tasks: tuple[OomTask, ...] = ()
    first: int = 0
    last: int = 0

    @property
    def cause(self) -> str:
        """`oom/cgroup` where a cgroup's limit was hit, else `oom/global`."""
        if self.constraint is not None:
            return "oom/cgroup" if self.constraint == "CONSTRAINT_MEMCG" else "oom/global"
        return "oom/cgroup" if self.memcg else "oom/global"

    @property
    def largest(self) -> tuple[OomTask, ...]:
        """The five tasks of the table with the most resident memory."""
        return tuple(sorted(self.tasks, key=lambda task: task.rss_kb or 0, reverse=True)[:5])


class _Pending:
    """What a report has said so far; one victim or several end it."""

    def __init__(self) -> None:
        self.fields: dict[str, object] = {}
        self.tasks: list[OomTask] = []
        self.header: list[str] | None = None
        self.killed: dict[int, dict[str, object]] = {}
        self.reaped: tuple[int, str] | None = None
        self.first: int | None = None
        self.last = 0

    def seen(self, index: int, **fields: object) -> None:
        if self.first is None:
            self.first = index
        self.last = index
        self.fields.update(fields)

    def reports(self) -> Iterator[OomReport]:
        if self.first is None:
            return
        shared = dict(self.fields)
        victims = list(self.killed.values())
        named = shared.pop("named", None)
        if not victims and isinstance(named, dict):
            victims = [named]
        if not victims and "chosen_pid" in shared:
            victims = [{"pid": shared.pop("chosen_pid"), "comm": shared.pop("chosen_comm")}]
        if not victims and self.reaped is not None:
            victims = [{"pid": self.reaped[0], "comm": self.reaped[1]}]
        for victim in victims or [{}]:
            fields = {**shared, **victim}
            if fields.get("chosen_pid") == fields.get("pid"):
                fields.pop("chosen_pid", None)
                fields.pop("chosen_comm", None)
            if fields.get("uid") is None and isinstance(named, dict) and named.get("pid") == fields.get("pid"):
                fields["uid"] = named.get("uid")
            yield OomReport(**fields, tasks=tuple(self.tasks), first=self.first, last=self.last)  # type: ignore[arg-type] # fields as they were found


def read_oom_reports(lines: Iterable[str]) -> tuple[OomReport, ...]:
    """Every kill in these kernel lines (with or without their prefixes), in their order, with all that was said about it."""
    return _reports([line.text for line in passage_of("\n".join(lines)).lines])


def read(passage: Passage) -> Iterator[Mark]:
    """Kills of the kernel's OOM killer."""
    if not passage.has(
        "oom-killer", "oom-kill:", "Killed process", "ill process", "oom killer", "memory", "oom_reaper", "Task in"
    ):
        return
    for report in _reports([line.text for line in passage.lines]):
        yield Mark(
            reading=_reading(report, passage),
            weight=Weight.KILLER,
            first=report.first,
            last=report.last,
            names=None if report.pid is None else f"pid {report.pid}",
        )


def _reports(lines: Sequence[str]) -> tuple[OomReport, ...]:
    found: list[OomReport] = []
    pending = _Pending()
    for index, line in enumerate(_unwrapped(lines)):
        if (starts := _INVOKED.search(line) or _INVOKED_MEMCG.search(line)) and pending.first is not None:
            found.extend(pending.reports())
            pending = _Pending()
        _take(pending, index, line, starts)
    found.extend(pending.reports())
    return tuple(found)


def _unwrapped(lines: Sequence[str]) -> Iterator[str]:
    """The lines, with the second half of one that a mail or a terminal wrapped put back behind the first; indexes stay."""
    for index, line in enumerate(lines):
        following = lines[index + 1].strip() if index + 1 < len(lines) else ""
        if "Killed process" in line and (
            ("-rss:" not in line and following.startswith(("total-vm:", "vsz:", "anon-rss:", "(")))
            or (
                line.rstrip().endswith(",")
                and following.startswith(("total-vm:", "anon-rss:", "file-rss:", "shmem-rss:", "UID:"))
            )
            or (line.rstrip().endswith("kB") and following.startswith(("UID:", "pgtables:", "oom_score_adj:")))
        ):
            yield f"{line.rstrip()} {following}"
        elif "oom-kill:constraint" in line and ",pid=" not in line and ",pid=" in following:
            yield f"{line.rstrip()}{following}"
        elif line.rstrip().endswith(("limit of", "invoked oom-killer:")) and following:
            yield f"{line.rstrip()} {following}"
        else:
            yield line


def _take(pending: _Pending, index: int, line: str, starts: re.Match[str] | None) -> None:
    if starts is not None:
        fields = starts.groupdict()
        pending.seen(index, trigger_comm=fields["comm"].strip())
        if "gfp" in fields:
            pending.seen(index, gfp_mask=fields["gfp"], order=int(fields["order"]), manual=fields["order"] == "-1")
        else:
            pending.seen(index, trigger_pid=int(fields["pid"]), memcg=True)
    elif pending.first is not None and _take_context(pending, index, line):
        return
    if match := _TASK_IN.search(line):
        pending.seen(index, memcg=True, task_memcg=match["task"], limit_memcg=match["limit"])
    elif match := _CONSTRAINT.search(line):
        _take_constraint(pending, index, match)
    elif match := _KILLED.search(line):
        _take_killed(pending, index, line, match)
    elif match := _CHOSEN.search(line):
        pending.seen(
            index,
            chosen_pid=int(match["pid"]),
            chosen_comm=match["comm"],
            score=int(match["score"]),
            memcg=_says_memcg(pending, line),
        )
    elif match := _REAPED.search(line):
        pending.reaped = (int(match["pid"]), match["comm"])
        pending.seen(index)
    elif match := _PANIC.search(line):
        pending.seen(index, panic=match["panic"].strip())
    elif _GROUP_KILL in line:
        pending.seen(index, group=True, memcg=True)


def _take_context(pending: _Pending, index: int, line: str) -> bool:
    """Lines that mean something only inside a report: where it happened, the numbers, the task table."""
    if match := _WHERE.search(line):
        fields = pending.fields
        if fields.get("trigger_comm") == match["comm"]:
            pending.seen(index, trigger_pid=int(match["pid"]))
        pending.seen(index, kernel=match["kernel"])
    elif match := _USAGE.search(line):
        pending.seen(
            index, memcg=True, usage_kb=int(match["usage"]), limit_kb=int(match["limit"]), failcnt=int(match["failcnt"])
        )
    elif _TABLE_HEADER.search(line):
        pending.header = line.replace("[", " ").replace("]", " ").split()
    elif pending.header is not None and (match := _TABLE_ROW.search(line)):
        pending.tasks.append(_task(pending.header, match))
    elif any(frame in line for frame in _MEMCG_FRAMES):
        pending.seen(index, memcg=True)
    elif "moom_callback" in line or "sysrq: Manual OOM" in line:
        pending.seen(index, manual=True)
    else:
        return False
    return True


def _task(header: list[str], row: re.Match[str]) -> OomTask:
    columns = dict(zip(header[1:-1], (int(number) for number in row["rest"].split()), strict=False))
    pages, rss = columns.get("total_vm"), columns.get("rss")
    return OomTask(
        pid=int(row["pid"]),
        comm=row["name"].strip(),
        uid=columns.get("uid", 0),
        total_vm_kb=None if pages is None else pages * PAGE_KB,
        rss_kb=None if rss is None else rss * PAGE_KB,
        oom_score_adj=columns.get("oom_score_adj"),
    )


def _take_constraint(pending: _Pending, index: int, match: re.Match[str]) -> None:
    rest = match["rest"]
    fields: dict[str, object] = {"constraint": match["constraint"], "global_oom": ",global_oom" in rest}
    task_memcg, oom_memcg = _path(rest, "task_memcg"), _path(rest, "oom_memcg")
    victim = re.search(r",task=(?P<comm>.{0,64}?),pid=(?P<pid>\d{1,10})(?:,uid=(?P<uid>\d{1,10}))?", rest)
    if victim is not None:
        uid = None if victim["uid"] is None else int(victim["uid"])
        fields["named"] = {"pid": int(victim["pid"]), "comm": victim["comm"], "uid": uid}
    elif oom_memcg is not None:
        task_memcg = oom_memcg  # the line is cut inside task_memcg, whose end cannot be trusted
    fields.update(oom_memcg=oom_memcg, task_memcg=task_memcg)
    pending.seen(index, **fields)


def _path(rest: str, name: str) -> str | None:
    match = re.search(rf",{name}=(.{{0,1000}}?)(?:,(?:task_memcg|task|oom_memcg)=|$)", rest)
    return match.group(1) if match else None


def _take_killed(pending: _Pending, index: int, line: str, match: re.Match[str]) -> None:
    pid = int(match["pid"])
    victim = pending.killed.setdefault(pid, {"pid": pid})
    victim["comm"] = match["comm"]
    if match["uid"] is not None:
        victim["uid"] = int(match["uid"])
    for name, pattern in _SIZE.items():
        if size := pattern.search(match["rest"]):
            victim[name] = int(size.group(1))
    pending.seen(index, memcg=_says_memcg(pending, line))


def _says_memcg(pending: _Pending, line: str) -> bool:
    return bool(pending.fields.get("memcg")) or "emory cgroup out of memory" in line


def _reading(report: OomReport, passage: Passage) -> Reading:
    where = report.limit_memcg or report.oom_memcg or report.task_memcg
    victim = "no victim is named" if report.pid is None else f"{report.comm} (pid {report.pid}) was killed"
    limit = "" if report.limit_kb is None else f" at {report.limit_kb} kB"
    if report.cause == "oom/cgroup":
        scope = f"memory cgroup {where or '(not named)'} reached its limit{limit}"
        culprit = f"the memory limit of cgroup {where}{limit}" if where else f"the memory limit of {report.comm}'s cgroup"
    else:
        scope = "SysRq asked for a manual OOM kill" if report.manual else "the machine ran out of memory"
        culprit = report.comm or "the machine's memory"
    return Reading(
        reader="kernel_oom",
        suggests=report.cause,
        says=f"kernel: {scope}; {report.panic or victim}",
        culprit=culprit,
        pid=report.pid,
        facts=_facts(report),
        excerpt=passage.excerpt(report.first, report.last),
    )


def _facts(report: OomReport) -> dict[str, object]:
    facts: dict[str, object] = {"pid": report.pid, "comm": report.comm}
    stated = {
        name: getattr(report, name)
        for name in (
            *("chosen_pid", "chosen_comm", "total_vm_kb", "anon_rss_kb", "file_rss_kb", "shmem_rss_kb", "uid", "pgtables_kb"),
            *("oom_score_adj", "score", "constraint", "oom_memcg", "limit_memcg", "usage_kb", "limit_kb", "failcnt"),
            *("trigger_comm", "trigger_pid", "gfp_mask", "order", "kernel", "panic"),
        )
    }
    stated["memcg"] = report.task_memcg
    stated["global_oom_flag"] = report.global_oom
    stated["manual"] = report.manual or None
    stated["group"] = report.group or None
    facts.update((name, value) for name, value in stated.items() if value is not None)
    return facts
