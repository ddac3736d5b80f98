"""What `status` shows people."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from flags.ramp import words

_LATE_SECONDS = 10
PHASES = {
    "ramping": "[cyan]ramping[/]",
    "held": "[yellow]held[/]",
    "rolled_back": "[bold red]rolled back[/]",
    "promoted": "[green]promoted[/]",
    "retired": "[green]old arm retired[/]",
}


def summary(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows above the replicas: a name, and what is so, in rich's markup."""
    rollout, flag = found["rollout"], found["flag"]
    share = rollout["share_percent"]
    observed = "no requests" if share["observed"] is None else f"{share['observed']:.1f} %"
    rows = [
        ("rollout", f"{flag['key']}  {PHASES.get(rollout['phase'] or '', 'no record yet')}"),
        (
            "share",
            (
                f"desired {percent(share['desired'])}   effective {percent(share['effective'])}   "
                f"observed {observed} of {share['observed_requests']} in the last minute"
            ),
        ),
    ]
    if stage := rollout["stage"]:
        left = "passed" if not stage["seconds_left"] else f"{words(stage['seconds_left'])} left"
        rows.append(("stage", f"{stage['number']} of {stage['of']}: {stage['share_percent']} %, {left}"))
    if rollout["is_ready_to_advance"]:
        rows.append(("", "[green]ready to advance: `rerank-canary advance`[/]"))
    rows.append(("flag", f"{flag['source']}, {_age(flag['age_seconds'])}{_red(flag['error'])}"))
    if rollout["flag_is_behind"]:
        rows.append(("", f"[yellow]the flag does not say it yet[/]{_red(rollout['flag_error'])}"))
    rows.append(("latch", _latch(rollout["latch"])))
    rows.append(("guard", _guard(found["guard"])))
    rows.append(("shadow", _shadow(found["shadow"])))
    rows.append(("feedback", _feedback(found["feedback"])))
    wrong = found["store"]["error"] or rollout["record_error"]
    rows.append(("store", f"degraded{_red(wrong)}" if wrong else "[green]ok[/]"))
    rows += [("", f"[yellow]{escape(warning)}[/]") for warning in rollout["warnings"]]
    return rows


def _latch(latch: dict[str, Any]) -> str:
    if not latch["is_set"]:
        return "open" if latch["is_known"] else "[yellow]not known: the store was never reached; control for all[/]"
    rollback = latch["rollback"] or {}
    cools = latch["cool_down_seconds_left"]
    text = (
        f"[bold red]SET[/] {rollback.get('rollback_id', '')} by {escape(rollback.get('actor', '?'))}: "
        f"{escape(rollback.get('reason') or '')}"
    )
    if not latch["is_delivered"]:
        return f"{text}  [yellow](the store does not know it yet)[/]"
    return text + (f"  cools down for {words(cools)}" if cools else "  may be re-armed")


def _guard(guard: dict[str, Any] | None) -> str:
    if guard is None:
        return "[yellow]off, or nothing was judged yet[/]"
    age = guard["judged_seconds_ago"]
    late = f"  [red]judged {words(age)} ago[/]" if age > _LATE_SECONDS else ""
    nobody = "" if guard["receivers"] else "  [yellow](nobody would be told: no receivers)[/]"
    return f"{guard['verdict']}: {escape(guard['reason'])}{late}{nobody}"


def _shadow(shadow: dict[str, Any] | None) -> str:
    if shadow is None:
        return "off"
    dollars = f"${shadow['dollars_last_hour']:.4f} of ${shadow['max_dollars_per_hour']:g} this hour"
    text = f"{shadow['last_minute']} in the last minute, " + (
        f"[yellow]{dollars}: spent[/]" if shadow["is_budget_spent"] else dollars
    )
    if skipped := shadow["skipped"]:
        text += f"; skipped {', '.join(f'{reason} {count}' for reason, count in sorted(skipped.items()))}"
    overlap = shadow["overlap_at_5"]
    if overlap["mean"] is not None:
        error = "" if overlap["standard_error"] is None else f" ± {overlap['standard_error']:.3f}"
        text += f"; overlap@5 {overlap['mean']:.3f}{error} of {overlap['pairs']} pairs"
    return text


def _feedback(feedback: dict[str, Any] | None) -> str:
    if feedback is None:
        return "off"
    texts = []
    for arm, found in feedback["arms"].items():
        text = f"{arm} {found['rankings']}"
        if found["rankings"]:
            text += f" (click-recall@5 {found['click_recall_at_5']:.3f}, RR {found['reciprocal_rank']:.3f})"
        if found["votes"]:
            text += f" {found['good_votes']:.0%} of {found['votes']} votes good"
        texts.append(text)
    if refused := feedback["refused"]:
        texts.append(f"not counted {', '.join(f'{result} {count}' for result, count in sorted(refused.items()))}")
    return ", ".join(texts)


def replicas(rollout: dict[str, Any]) -> Table:
    """Return one row a replica."""
    table = Table(title="replicas", title_justify="left")
    for name in ("replica", "host", "heartbeat", "ready", "latched", "share", "flag age", "requests a minute"):
        table.add_column(name)
    for each in rollout["replicas"]:
        leads = " [dim]leads[/]" if each["instance_id"] == rollout["leader"] else ""
        beat = f"{each['heartbeat_seconds_ago']:.0f} s ago"
        table.add_row(
            each["instance_id"] + leads,
            each["host"],
            f"[red]{beat}, gone[/]" if each["is_gone"] else beat,
            "[green]yes[/]" if each["is_ready"] else "[red]no[/]",
            "[red]yes[/]" if each["is_latched"] else "no",
            percent(each["share_percent"]),
            _age(each["flag_age_seconds"]),
            str(each["requests_last_minute"]),
        )
    return table


def percent(share: float | None) -> str:
    """Return a share in words."""
    return "unknown" if share is None else f"{share} %"


def _age(seconds: float | None) -> str:
    return "never read" if seconds is None else f"confirmed {seconds:.0f} s ago"


def _red(error: str | None) -> str:
    return f"  [red]{escape(error)}[/]" if error else ""
