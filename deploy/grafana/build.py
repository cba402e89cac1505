"""Writes the dashboards next to it, from the panels below. Five dashboards share how a panel looks; what differs is here.

    python3 deploy/grafana/build.py            write dashboards/*.json
    python3 deploy/grafana/build.py --check    say whether they are what this file says

Metrics are those of crates/domain/src/telemetry.rs, columns those of the schema `watch`; tests/tests/watch.rs checks both.
"""

import argparse
import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent / "dashboards"
# Grafana 12 writes this one; newer versions read it.
SCHEMA_VERSION = 41
COLUMNS = 24

PROMETHEUS = {"type": "prometheus", "uid": "${prometheus}"}
POSTGRES = {"type": "grafana-postgresql-datasource", "uid": "${postgres}"}
# The type of the data source with the uid `traces`, see provisioning/datasources.
TRACES_TYPE = "jaeger"

GREEN = [(None, "green")]
STATES = {
    "queued": "blue",
    "harvesting": "yellow",
    "training": "purple",
    "evaluating": "purple",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "text",
    "paused": "orange",
}
# Where a query asks for a share of nothing, there is nothing to show.
RATE = "[$__rate_interval]"


# How a panel looks.


def thresholds(steps):
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


def panel(kind, title, description, targets, *, width, height, unit="short", steps=GREEN, options, custom=None, **field):
    defaults = {"unit": unit, "thresholds": thresholds(steps), "color": {"mode": "thresholds"}, **field}
    if custom is not None:
        defaults["custom"] = custom
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": targets[0]["datasource"],
        "targets": targets,
        "gridPos": {"x": 0, "y": 0, "w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def metric(expression, legend="", letter="A", instant=False):
    return {
        "refId": letter,
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": expression,
        "legendFormat": legend or "__auto",
        "instant": instant,
        "range": not instant,
    }


def metrics(*pairs, instant=False):
    return [metric(expression, legend, chr(ord("A") + place), instant) for place, (expression, legend) in enumerate(pairs)]


def sql(text):
    lines = " ".join(line.strip() for line in text.strip().splitlines())
    return [
        {
            "refId": "A",
            "datasource": POSTGRES,
            "editorMode": "code",
            "format": "table",
            "rawQuery": True,
            "rawSql": lines,
        }
    ]


def lines(title, description, targets, *, width=12, height=8, unit="short", steps=None, stacked=False, least=0):
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 20 if stacked else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    made = panel(
        "timeseries",
        title,
        description,
        targets,
        width=width,
        height=height,
        unit=unit,
        steps=steps or GREEN,
        options=options,
        custom=custom,
        min=least,
    )
    made["fieldConfig"]["defaults"]["color"] = {"mode": "palette-classic"}
    return made


def curve(title, description, query, *, width=8, height=9, unit="short", **field):
    custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "auto", "spanNulls": True}
    options = {
        "xField": "step",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "none"},
    }
    made = panel(
        "trend",
        title,
        description,
        sql(query),
        width=width,
        height=height,
        unit=unit,
        options=options,
        custom=custom,
        **field,
    )
    made["fieldConfig"]["defaults"]["color"] = {"mode": "palette-classic"}
    made["fieldConfig"]["overrides"] = [override("step", unit="none")]
    return made


def reduced(values=False, fields=""):
    return {"calcs": ["lastNotNull"], "fields": fields, "values": values}


def number(title, description, targets, *, width=4, height=4, unit="short", steps=GREEN, wide=False, **field):
    options = {
        "reduceOptions": reduced(fields="/.*/" if wide else ""),
        "colorMode": "value",
        "graphMode": "none" if wide else "area",
        "justifyMode": "auto",
        "orientation": "vertical" if wide else "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
    }
    return panel(
        "stat", title, description, targets, width=width, height=height, unit=unit, steps=steps, options=options, **field
    )


def bars(title, description, query, *, width=8, height=9, unit="short", steps=GREEN, rows=False, **field):
    options = {
        "reduceOptions": reduced(values=rows, fields="" if rows else "/.*/"),
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "auto",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizWidth": 8,
        "minVizHeight": 16,
        "maxVizHeight": 40,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
    }
    return panel(
        "bargauge",
        title,
        description,
        sql(query),
        width=width,
        height=height,
        unit=unit,
        steps=steps,
        options=options,
        min=0,
        **field,
    )


def table(title, description, query, *overrides, width=24, height=9):
    made = panel(
        "table",
        title,
        description,
        sql(query),
        width=width,
        height=height,
        options={"showHeader": True, "cellHeight": "sm"},
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
    )
    made["fieldConfig"]["overrides"] = list(overrides)
    return made


def override(name, **properties):
    """What differs for one column; `custom_x` is `custom.x`."""
    made = [{"id": key.replace("custom_", "custom."), "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": made}


def colored_states(name="state"):
    mapped = {state: {"text": state, "color": color, "index": place} for place, (state, color) in enumerate(STATES.items())}
    return override(name, mappings=[{"type": "value", "options": mapped}], custom_cellOptions={"type": "color-text"})


def share_bar(name, steps):
    return override(
        name,
        unit="percentunit",
        min=0,
        max=1,
        thresholds=thresholds(steps),
        custom_cellOptions={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
    )


def shares(*names):
    return [override(name, unit="percentunit", decimals=1) for name in names]


def instants(*names):
    return [override(name, unit="dateTimeAsLocal") for name in names]


def row(title):
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": 0, "w": COLUMNS, "h": 1},
        "panels": [],
    }


def laid_out(panels):
    """Left to right, line by line, on Grafana's grid."""
    x = y = line_height = 0
    for count, made in enumerate(panels, 1):
        place = made["gridPos"]
        if made["type"] == "row" or x + place["w"] > COLUMNS:
            x, y, line_height = 0, y + line_height, 0
        place["x"], place["y"] = x, y
        x, line_height = x + place["w"], max(line_height, place["h"])
        made["id"] = count
    return panels


# What every dashboard has.


def source(name, kind, label):
    """The data source with the uid `name`, unless somebody picks another one."""
    return {
        "type": "datasource",
        "name": name,
        "label": label,
        "query": kind,
        "current": {"text": name, "value": name},
        "options": [],
        "refresh": 1,
        "regex": "",
        "hide": 2,
        "includeAll": False,
        "multi": False,
    }


SOURCES = {
    "prometheus": source("prometheus", "prometheus", "Metrics"),
    "postgres": source("postgres", POSTGRES["type"], "Records"),
    "traces": source("traces", TRACES_TYPE, "Traces"),
}


def choice(name, label, values):
    """Some or all of a label's values."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": PROMETHEUS,
        "query": {"query": values, "refId": "A"},
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
        "refresh": 2,
        "regex": "",
        "sort": 1,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
    }


def dashboard(name, title, description, panels, sources, variables=(), since="now-1h"):
    return {
        "uid": f"distillery-{name}",
        "title": title,
        "description": description,
        "tags": ["distillery"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": since, "to": "now"},
        "timepicker": {"refresh_intervals": ["10s", "30s", "1m", "5m", "15m"]},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "Distillery",
                "icon": "external link",
                "tooltip": "",
                "tags": ["distillery"],
                "asDropdown": False,
                "includeVars": False,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "templating": {"list": [SOURCES[source] for source in sources] + list(variables)},
        "annotations": {"list": []},
        "panels": laid_out(panels),
    }


# Queries that come again.


def rate(name, by="", where=""):
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({name}{where}{RATE}))"


def quantile(share, name, by="", where=""):
    """What all but so many of the observations stay below."""
    grouping = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', grouping, where)})"


def quantiles(name, by="", where=""):
    """The median and what one in twenty and one in a hundred exceed."""
    legend = f" {{{{{by}}}}}" if by else ""
    return metrics(*((quantile(share, name, by, where), f"p{share * 100:.0f}{legend}") for share in (0.5, 0.95, 0.99)))


def mean(name, where=""):
    return f"{rate(f'{name}_sum', where=where)} / {rate(f'{name}_count', where=where)}"


# Jobs: from the records.

ONE = "WHERE job = '${job}'"
JOB_LINK = [{"title": "Show this job below", "url": "/d/distillery-jobs?var-job=${__data.fields.job}&${__url_time_range}"}]
TRACE_LINK = [
    {
        "title": "Show its trace",
        "url": "/explore?schemaVersion=1&panes=%7B%22a%22:%7B%22datasource%22:%22${traces}%22,%22queries%22:%5B%7B%22"
        "refId%22:%22A%22,%22query%22:%22${__value.raw}%22%7D%5D,%22range%22:%7B%22from%22:%22now-7d%22,%22to%22:%22now"
        "%22%7D%7D%7D",
    }
]


def all_jobs():
    counts = ", ".join(f"count(*) FILTER (WHERE state = '{state}') AS {state}" for state in STATES)
    by_state = number(
        "Jobs by state",
        "All jobs. Failed and paused ones need an operator: the table below says what to do.",
        sql(f"SELECT {counts} FROM watch.jobs"),
        width=18,
        wide=True,
    )
    by_state["fieldConfig"]["overrides"] = [
        override(state, color={"mode": "fixed", "fixedColor": color}) for state, color in STATES.items()
    ]
    return [
        by_state,
        number(
            "Backlog",
            "Prompts of running jobs that are pending, and those leased by a harvester. Harvesters are scaled by their sum.",
            sql("SELECT coalesce(sum(pending), 0) AS pending, coalesce(sum(leased), 0) AS leased FROM watch.backlog"),
            width=6,
            wide=True,
        ),
        table(
            "Jobs",
            "Every unfinished job, and those that changed in the time range. Progress and time left are those of the "
            "current stage; the budget is the fullest of prompts, tokens and money. Click a name to see it below.",
            """
            SELECT name, state, stage, progress, seconds_left, prompts_done, prompts_total, prompts_per_second,
                rationales_accepted, rationales_rejected, step, steps, steps_per_second, teacher, objective, money,
                (SELECT max(share) FROM watch.spend WHERE spend.job = jobs.job) AS budget, model, accuracy, accuracy_low,
                accuracy_high, reason, created_at, updated_at, trace, job
            FROM watch.jobs AS jobs WHERE job IN (
                SELECT job FROM watch.jobs
                WHERE $__timeFilter(updated_at) OR state NOT IN ('succeeded', 'failed', 'cancelled')
                ORDER BY created_at DESC LIMIT 50
            ) ORDER BY created_at DESC
            """,
            colored_states(),
            share_bar("progress", [(None, "blue"), (1, "green")]),
            share_bar("budget", [(None, "green"), (0.8, "orange"), (1, "red")]),
            override("name", links=JOB_LINK),
            override("trace", links=TRACE_LINK),
            override("seconds_left", unit="s"),
            override("prompts_per_second", decimals=2),
            override("steps_per_second", decimals=2),
            override("money", decimals=4),
            *shares("accuracy", "accuracy_low", "accuracy_high"),
            *instants("created_at", "updated_at"),
            height=11,
        ),
    ]


def stopped_jobs_and_models():
    return [
        table(
            "Jobs that stopped, and why",
            "Jobs that failed, were cancelled or are paused. Once the cause is repaired, `distillery resume` continues one "
            "where it stopped.",
            """
            SELECT jobs.name, failures.state, failures.reason, failures.at, failures.job
            FROM watch.failures AS failures JOIN watch.jobs AS jobs ON jobs.job = failures.job
            WHERE failures.what = 'job' AND $__timeFilter(failures.at) ORDER BY failures.at DESC LIMIT 50
            """,
            colored_states(),
            override("name", links=JOB_LINK),
            *instants("at"),
            width=12,
        ),
        table(
            "Models",
            "The newest students: accuracy on the test rows with its 95% bootstrap interval, next to their teacher's.",
            """
            SELECT model, accuracy, accuracy_low, accuracy_high, validation_accuracy, teacher_accuracy,
                teacher_accuracy_low, teacher_accuracy_high, rows, parameters, created_at, job
            FROM watch.models ORDER BY created_at DESC LIMIT 20
            """,
            *shares(
                "accuracy",
                "accuracy_low",
                "accuracy_high",
                "validation_accuracy",
                "teacher_accuracy",
                "teacher_accuracy_low",
                "teacher_accuracy_high",
            ),
            override("model", links=JOB_LINK),
            *instants("created_at"),
            width=12,
        ),
    ]


def one_job_progress():
    # One query for all of it: each reads the job's prompts.
    now = number(
        "Now",
        "Where the job stands, how far its present stage has come, and how long it will take at its present rate: unknown "
        "before its first answer or report, and once it is over.",
        sql(f"SELECT state, stage, progress, seconds_left, prompts_per_second, steps_per_second FROM watch.jobs {ONE}"),
        width=16,
        wide=True,
        noValue="-",
    )
    mapped = {name: {"text": name, "color": color, "index": place} for place, (name, color) in enumerate(STATES.items())}
    now["fieldConfig"]["defaults"]["mappings"] = [{"type": "value", "options": mapped}]
    now["fieldConfig"]["overrides"] = [
        override("progress", unit="percentunit", decimals=1),
        override("seconds_left", unit="s"),
        override("prompts_per_second", decimals=2),
        override("steps_per_second", decimals=2),
    ]
    return [
        now,
        number(
            "Seconds of each stage",
            "Wall-clock seconds of harvest, training and evaluation, as far as they are known.",
            sql(f"SELECT harvest_seconds, train_seconds, evaluate_seconds FROM watch.jobs {ONE}"),
            width=8,
            unit="s",
            wide=True,
        ),
        bars(
            "Funnel",
            "Of the prompts that were planned: how many are done, were answered, and gave a rationale that trains.",
            f"""
            SELECT prompts_total AS planned, prompts_done AS done, prompts_answered AS answered,
                rationales_accepted AS accepted FROM watch.jobs {ONE}
            """,
        ),
        bars(
            "Verdicts by reason",
            "What became of the prompts about train rows: accepted, rejected and why, or not judged yet.",
            f"""
            SELECT concat_ws(': ', coalesce(verdict, state), reason) AS outcome, sum(prompts)::bigint AS prompts
            FROM watch.verdicts {ONE} AND purpose = 'train' GROUP BY 1 ORDER BY 2 DESC
            """,
            rows=True,
        ),
        table(
            "Budget",
            "What is used and reserved of what the job may spend. Without a limit there is no share.",
            f"SELECT resource, used, reserved, allowed, share FROM watch.spend {ONE} ORDER BY resource DESC",
            share_bar("share", [(None, "green"), (0.8, "orange"), (1, "red")]),
            width=8,
        ),
    ]


def one_job_learning():
    return [
        curve(
            "Loss",
            "Nats a token of the two tasks, by optimiser step; their sum, weighted by alpha, is what is minimised.",
            f"""
            SELECT step, max(value) FILTER (WHERE name = 'loss_label') AS label,
                max(value) FILTER (WHERE name = 'loss_rationale') AS rationale
            FROM watch.curves {ONE} AND name IN ('loss_label', 'loss_rationale') GROUP BY step ORDER BY step
            """,
            decimals=3,
        ),
        curve(
            "Validation accuracy",
            "Share of right labels on the validation rows; the best step becomes the model.",
            f"""
            SELECT step, value AS accuracy FROM watch.curves {ONE} AND name = 'validation_accuracy' ORDER BY step
            """,
            unit="percentunit",
            min=0,
            max=1,
        ),
        curve(
            "Pace",
            "Examples a second between two reports, and the norm of the gradient before it is clipped.",
            f"""
            SELECT step, max(value) FILTER (WHERE name = 'examples_per_second') AS examples_per_second,
                max(value) FILTER (WHERE name = 'gradient_norm') AS gradient_norm
            FROM watch.curves {ONE} AND name IN ('examples_per_second', 'gradient_norm') GROUP BY step ORDER BY step
            """,
        ),
        table(
            "Student and teacher",
            "The model that the job published, with its 95% bootstrap interval on the test rows; its teacher on the same.",
            f"""
            SELECT model, accuracy, accuracy_low, accuracy_high, teacher_accuracy, teacher_accuracy_low,
                teacher_accuracy_high, rows, parameters FROM watch.models {ONE} ORDER BY version DESC
            """,
            *shares(
                "accuracy",
                "accuracy_low",
                "accuracy_high",
                "teacher_accuracy",
                "teacher_accuracy_low",
                "teacher_accuracy_high",
            ),
            width=12,
            height=5,
        ),
    ]


def one_job_history():
    return [
        table(
            "Training run",
            "Who trains, how far it is, and how often the run was leased: more than once after a crash or a hand-over.",
            f"SELECT state, trainer, step, leases, waits, reason, created_at FROM watch.runs {ONE}",
            *instants("created_at"),
            width=12,
            height=5,
        ),
        table(
            "Failures",
            "Why the job stopped, and why prompts of it were parked: the teacher failed on them too often. "
            "`distillery resume` asks parked prompts again.",
            f"SELECT what, state, reason, count, at FROM watch.failures {ONE} ORDER BY count DESC LIMIT 100",
            *instants("at"),
            width=12,
        ),
        table(
            "Events",
            "What happened to the job, newest first; reports of training are in the curves above.",
            f"""
            SELECT sequence, at, kind, state_from, state_to, reason, step, split, accuracy, accuracy_low, accuracy_high,
                model FROM watch.events {ONE} AND kind <> 'training_progress' ORDER BY sequence DESC LIMIT 100
            """,
            *shares("accuracy", "accuracy_low", "accuracy_high"),
            *instants("at"),
            width=12,
        ),
    ]


def jobs():
    job = {
        "type": "query",
        "name": "job",
        "label": "Job",
        "datasource": POSTGRES,
        "query": "SELECT concat_ws(' ', name, left(job::text, 8)) AS __text, job AS __value FROM watch.jobs "
        "ORDER BY created_at DESC LIMIT 500",
        "current": {"text": "", "value": ""},
        "options": [],
        "refresh": 2,
        "regex": "",
        "sort": 0,
        "includeAll": False,
        "multi": False,
    }
    panels = [
        *all_jobs(),
        *stopped_jobs_and_models(),
        row("Job: ${job:text}"),
        *one_job_progress(),
        *one_job_learning(),
        *one_job_history(),
    ]
    description = "Where every job stands, and all about one of them. Read from the records."
    return dashboard("jobs", "Jobs", description, panels, ["postgres", "traces"], [job], since="now-7d")


# Harvest, training, serving, system: from the metrics.

TEACHERS = '{profile=~"${profile}"}'


def harvest_now():
    answers = rate("distillery_prompts_harvested_total")
    calls = rate("distillery_teacher_requests_total", where=TEACHERS)
    failed = rate("distillery_teacher_requests_total", where='{outcome=~"unavailable|malformed|refused",' + TEACHERS[1:])
    return [
        number(
            "Answers a second",
            "Answers that were written to the ledger, from teachers and from the store of completions.",
            metrics((answers, "")),
        ),
        number(
            "Calls in flight",
            "Questions that teachers are being asked right now.",
            metrics((f"sum (distillery_teacher_in_flight_requests{TEACHERS})", "")),
        ),
        number(
            "Calls that failed",
            "Share of the teachers' calls that ended in an error of the teacher; waits that it asked for are not errors.",
            metrics((f"{failed} / {calls}", "")),
            unit="percentunit",
            steps=[(None, "green"), (0.05, "orange"), (0.2, "red")],
        ),
        number(
            "Paid twice",
            "Share of the answers that came after their lease was lost, and changed nothing: they may be paid for again.",
            metrics((f"{rate('distillery_prompts_stale_total')} / {answers}", "")),
            unit="percentunit",
            steps=[(None, "green"), (0.001, "orange"), (0.01, "red")],
        ),
        number(
            "Work queue",
            "Entries that wait or are delivered. The database has more: the rest is enqueued when there is room.",
            metrics(("max (distillery_queue_entries)", "")),
        ),
        number(
            "Spent an hour",
            "Cost of the calls at the present rate, in units of the teachers' currency.",
            metrics((f"{rate('distillery_teacher_cost_micros_total', where=TEACHERS)} * 3600 / 1e6", "")),
            decimals=2,
        ),
    ]


def teachers():
    requests = "distillery_teacher_requests_total"
    return [
        row("Teachers"),
        lines(
            "Calls by outcome",
            "Calls to teachers that ended, a second. Of `rate_limited` some is healthy: the limit is used up.",
            metrics((rate(requests, "profile, outcome", TEACHERS), "{{profile}} {{outcome}}")),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Seconds of a call",
            "How long teachers take: the median, and what one in twenty and one in a hundred calls exceed.",
            quantiles("distillery_teacher_request_duration_seconds", "profile", TEACHERS),
            unit="s",
        ),
        lines(
            "Calls in flight",
            "Calls at once, by profile; a profile's concurrency_max is the most that all harvesters make together.",
            metrics((f"sum by (profile) (distillery_teacher_in_flight_requests{TEACHERS})", "{{profile}}")),
            width=8,
        ),
        lines(
            "Tokens a second",
            "As the teachers count them: `in` is read, `out` is written.",
            metrics((rate("distillery_teacher_tokens_total", "profile, direction", TEACHERS), "{{profile}} {{direction}}")),
            width=8,
        ),
        lines(
            "Spent an hour",
            "Cost of the calls at the present rate, in units of each teacher's currency.",
            metrics((f"{rate('distillery_teacher_cost_micros_total', 'profile', TEACHERS)} * 3600 / 1e6", "{{profile}}")),
            width=8,
        ),
        lines(
            "Waits",
            "Calls a second that had to wait, by reason: the profile's limits, calls at once, refusals, failures.",
            metrics((rate("distillery_teacher_waits_total", "profile, reason", TEACHERS), "{{profile}} {{reason}}")),
            width=8,
        ),
        lines(
            "Rate and ceiling",
            "The part of the limits a minute that is used, as refusals taught, and the most calls at once at present.",
            metrics(
                (f"min by (profile) (distillery_teacher_rate_factor_ratio{TEACHERS})", "{{profile}} part of the limit"),
                (
                    f"max by (profile) (distillery_teacher_concurrency_ceiling_requests{TEACHERS})",
                    "{{profile}} calls at once",
                ),
            ),
            width=8,
        ),
        lines(
            "Not asked",
            "Seconds that a teacher is not asked, because it refused or failed.",
            metrics((f"max by (profile) (distillery_teacher_held_seconds{TEACHERS})", "{{profile}}")),
            unit="s",
            width=8,
        ),
    ]


def answers():
    all_answers = rate("distillery_prompts_harvested_total")
    stored = rate("distillery_prompts_harvested_total", where='{cached="true"}')
    return [
        row("Answers"),
        lines(
            "Answers by provisional verdict",
            "Answers that were written, a second. The final verdict is given when a row's samples are all there.",
            metrics((rate("distillery_prompts_harvested_total", "verdict"), "{{verdict}}")),
            stacked=True,
        ),
        lines(
            "Answers from the store",
            "Share of the answers that cost nothing, because the very question was answered before.",
            metrics((f"{stored} / {all_answers}", "from the store")),
            unit="percentunit",
        ),
        lines(
            "Attempts without an answer",
            "By what became of the prompt: delayed (tried again, nothing counted), counted (the teacher's own failure; "
            "after some the prompt is parked), paused (its job needs an operator).",
            metrics((rate("distillery_prompts_failed_total", "outcome"), "{{outcome}}")),
        ),
        lines(
            "Batches",
            "What happened to batches at providers, in five minutes. Refused and in doubt need a look: "
            "`distillery show JOB` lists a job's batches.",
            metrics(
                ("sum by (event) (increase(distillery_batches_total[5m]))", "{{event}}"),
                ("sum(increase(distillery_batch_lines_unanswered_total[5m]))", "lines without an answer"),
            ),
        ),
        lines(
            "Stale answers",
            "Answers a second that came after their lease was lost. More than a few mean that leases are too short, or "
            "processes stall.",
            metrics((rate("distillery_prompts_stale_total"), "stale")),
        ),
    ]


def work_list():
    return [
        row("Work queue and records"),
        lines(
            "Entries of the work queue",
            "Waiting and delivered, as each harvester sees them; they share one queue.",
            metrics(("max (distillery_queue_entries)", "entries")),
            width=8,
        ),
        lines(
            "Enqueued",
            "Entries a second: by the relay what is new, by the reconciler what the list had lost.",
            metrics((rate("distillery_queue_published_total", "by"), "{{by}}")),
            width=8,
        ),
        lines(
            "Answers of one write",
            "The mean; a write takes up to 200 answers, and waits 20 ms for more.",
            metrics((mean("distillery_harvest_write_rows"), "answers")),
            width=8,
        ),
        lines(
            "Seconds of a write",
            "From the batch to its commit. Answers wait here; teachers do not.",
            quantiles("distillery_harvest_write_duration_seconds"),
            width=24,
            unit="s",
            steps=[(None, "green"), (1, "red")],
        ),
    ]


def harvest():
    panels = [*harvest_now(), *teachers(), *answers(), *work_list()]
    profile = choice("profile", "Teacher", "label_values(distillery_teacher_requests_total, profile)")
    description = "Teachers, answers, and the work queue between them. All jobs together: a single job is under Jobs."
    return dashboard("harvest", "Harvest", description, panels, ["prometheus"], [profile])


def training_now():
    return [
        number(
            "Runs in training",
            "Runs that are being trained right now, over all trainers.",
            metrics(("sum (distillery_training_active_runs)", "")),
            width=6,
        ),
        number(
            "Examples a second",
            "Examples that were trained on, over all trainers.",
            metrics((rate("distillery_training_examples_total"), "")),
            width=6,
        ),
        number(
            "Steps a second",
            "Optimiser steps, over all trainers.",
            metrics((rate("distillery_training_steps_total"), "")),
            width=6,
        ),
        number(
            "Runs that failed, a day",
            "Runs that ended as failed in the last 24 hours; Jobs says which, and why.",
            metrics(('sum (increase(distillery_training_runs_total{outcome="failed"}[1d]))', "")),
            width=6,
            steps=[(None, "green"), (1, "red")],
        ),
    ]


def steps_and_runs():
    return [
        row("Steps"),
        lines(
            "Examples a second",
            "By trainer.",
            metrics((rate("distillery_training_examples_total", "instance"), "{{instance}}")),
        ),
        lines(
            "Seconds of a step",
            "Forward, backward and the optimiser; reports and checkpoints are not in it.",
            quantiles("distillery_training_step_duration_seconds"),
            unit="s",
        ),
        lines(
            "Loss of the newest step",
            "Nats a token, by task and trainer. The curves of one job are under Jobs.",
            metrics(("max by (instance, task) (distillery_training_loss_nats)", "{{task}} {{instance}}")),
        ),
        lines(
            "Steps a second",
            "By trainer.",
            metrics((rate("distillery_training_steps_total", "instance"), "{{instance}}")),
        ),
        row("Runs"),
        lines(
            "Runs in training",
            "By trainer: 0 or 1.",
            metrics(("sum by (instance) (distillery_training_active_runs)", "{{instance}}")),
            width=8,
            stacked=True,
        ),
        lines(
            "Runs that ended, an hour",
            "By outcome: succeeded, failed, released (at a shutdown), cancelled, lost (the lease went to another).",
            metrics(("sum by (outcome) (increase(distillery_training_runs_total[1h]))", "{{outcome}}")),
            width=8,
        ),
        lines(
            "Seconds to write a checkpoint",
            "What one in twenty exceeds: `resume` is what a restart resumes from, `model` what is served.",
            metrics((quantile(0.95, "distillery_checkpoint_write_duration_seconds", "kind"), "p95 {{kind}}")),
            width=8,
            unit="s",
        ),
    ]


def training():
    panels = [*training_now(), *steps_and_runs()]
    description = "Trainers and their runs. The curves of one job are under Jobs."
    return dashboard("training", "Training", description, panels, ["prometheus"])


def serving_now():
    requests = rate("distillery_inference_requests_total")
    refusals = rate("distillery_inference_refusals_total")
    return [
        number(
            "Requests a second",
            "Requests that the engine answered or gave up.",
            metrics((requests, "")),
        ),
        number(
            "Refused",
            "Share of the requests that were not admitted. Callers are told to retry elsewhere or later.",
            metrics((f"{refusals} / ({requests} + {refusals})", "")),
            unit="percentunit",
            steps=[(None, "green"), (0.001, "orange"), (0.01, "red")],
        ),
        number(
            "Given up",
            "Share of the admitted requests that ended otherwise than with an answer: at their deadline, cancelled, failed.",
            metrics((rate("distillery_inference_requests_total", where='{outcome!="ok"}') + f" / {requests}", "")),
            unit="percentunit",
            steps=[(None, "green"), (0.01, "orange"), (0.05, "red")],
        ),
        number(
            "One in a hundred takes",
            "Seconds from admission to the end that one in a hundred requests exceeds.",
            metrics((quantile(0.99, "distillery_inference_request_duration_seconds"), "p99")),
            unit="s",
            steps=[(None, "green"), (1, "orange"), (10, "red")],
        ),
        number(
            "Models served",
            "The most that one replica serves, and the fewest: they differ while a new model is loaded.",
            metrics(("max (distillery_inference_models)", "most"), ("min (distillery_inference_models)", "fewest")),
        ),
        number(
            "Loads that failed, a day",
            "Published models that could not be loaded in the last 24 hours.",
            metrics(('sum (increase(distillery_inference_model_loads_total{outcome="failed"}[1d]))', "")),
            steps=[(None, "green"), (1, "red")],
        ),
    ]


def asked():
    duration = "distillery_inference_request_duration_seconds"
    return [
        row("Requests"),
        lines(
            "Requests by task and outcome",
            "`score` gives a label, `text` writes one or a rationale. Requests a second.",
            metrics((rate("distillery_inference_requests_total", "task, outcome"), "{{task}} {{outcome}}")),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Refusals by reason",
            "`overloaded`: requests hold more tokens than inference.queue_tokens_max; `draining`: the replica shuts down.",
            metrics((rate("distillery_inference_refusals_total", "reason"), "{{reason}}")),
            unit="reqps",
        ),
        lines(
            "Seconds of a request",
            "From admission to the end, by task.",
            quantiles(duration, "task"),
            unit="s",
        ),
        lines(
            "Seconds to the first token",
            "From admission: the queue, the encoder and the first step of the decoder.",
            quantiles("distillery_inference_time_to_first_token_seconds"),
            unit="s",
        ),
    ]


def queue_and_batches():
    padding = rate("distillery_inference_padding_tokens_total")
    read = rate("distillery_inference_tokens_total", where='{direction="in"}')
    return [
        row("Queue and steps"),
        lines(
            "Seconds in the queue",
            "From admission to the first step.",
            quantiles("distillery_inference_queue_duration_seconds"),
            width=8,
            unit="s",
        ),
        lines(
            "Tokens that requests hold",
            "Read and promised, from admission to the end, by replica; at inference.queue_tokens_max requests are refused.",
            metrics(("sum by (instance) (distillery_inference_queue_tokens)", "{{instance}}")),
            width=8,
        ),
        lines(
            "Rows of a step",
            "The mean: the more, the better the device is used.",
            metrics((mean("distillery_inference_batch_rows"), "requests")),
            width=8,
        ),
        lines(
            "Tokens a second",
            "`in` is read, `out` is written.",
            metrics((rate("distillery_inference_tokens_total", "direction"), "{{direction}}")),
            width=8,
        ),
        lines(
            "Padding",
            "Share of the source positions of batches that held nothing.",
            metrics((f"{padding} / ({padding} + {read})", "padding")),
            width=8,
            unit="percentunit",
        ),
        lines(
            "Answers given again",
            "Questions whose answers may be kept, by whether they were: hit, miss.",
            metrics((rate("distillery_inference_cache_lookups_total", "outcome"), "{{outcome}}")),
            width=8,
        ),
        lines(
            "Loads of models",
            "Published models that replicas loaded in the last hour, by outcome.",
            metrics(("sum by (outcome) (increase(distillery_inference_model_loads_total[1h]))", "{{outcome}}")),
            width=8,
        ),
    ]


def serving():
    panels = [*serving_now(), *asked(), *queue_and_batches()]
    description = "What is asked of the students, and how they answer."
    return dashboard("serving", "Serving", description, panels, ["prometheus"])


ROLES = '{job=~"${role}"}'
# By our doing, not the caller's. A refusal is an answer: callers are told to come again.
ERRORS = "UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"


def system_now():
    calls = rate("distillery_rpc_requests_total", where=ROLES)
    failed = rate("distillery_rpc_requests_total", where=f'{{code=~"{ERRORS}",{ROLES[1:]}')
    return [
        number(
            "Processes that answer",
            "By role, of those that Prometheus knows.",
            metrics((f"sum by (job) (up{ROLES})", "{{job}}"), instant=True),
            width=8,
            steps=[(None, "red"), (1, "green")],
        ),
        number(
            "Processes that do not",
            "Known to Prometheus, and its last look at them failed.",
            metrics((f"sum (1 - up{ROLES})", "")),
            steps=[(None, "green"), (1, "red")],
        ),
        number(
            "Calls that failed",
            "Share of the gRPC calls that ended with an error of ours: not those that a caller made wrong.",
            metrics((f"({failed} or vector(0)) / {calls}", "")),
            unit="percentunit",
            steps=[(None, "green"), (0.01, "orange"), (0.05, "red")],
        ),
        number(
            "Builds",
            "Which versions answer, and in which roles: more than one of a role while a new one rolls out.",
            metrics((f"count by (version, roles) (distillery_build_info{ROLES})", "{{version}} {{roles}}"), instant=True),
            width=8,
        ),
    ]


def calls_and_processes():
    requests = "distillery_rpc_requests_total"
    return [
        row("Calls"),
        lines(
            "Calls by method",
            "Calls that ended, a second.",
            metrics((rate(requests, "service, method", ROLES), "{{service}} {{method}}")),
            unit="reqps",
        ),
        lines(
            "Calls by status",
            "Calls that ended, a second, by what they ended with. Everything but OK deserves a look; refusals and "
            "deadlines are the caller's to try again.",
            metrics((rate(requests, "code", ROLES), "{{code}}")),
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Seconds of a call",
            "What one in twenty exceeds, by method. Calls that stream or watch last as long as they are wanted.",
            metrics((quantile(0.95, "distillery_rpc_duration_seconds", "service, method", ROLES), "{{service}} {{method}}")),
            unit="s",
        ),
        lines(
            "Calls in flight",
            "By process.",
            metrics((f"sum by (job, instance) (distillery_rpc_in_flight_requests{ROLES})", "{{job}} {{instance}}")),
        ),
        row("Processes"),
        lines(
            "Processor",
            "Cores that each process keeps busy.",
            metrics(
                (f"sum by (job, instance) (rate(distillery_process_cpu_seconds_total{ROLES}{RATE}))", "{{job}} {{instance}}")
            ),
        ),
        lines(
            "Memory",
            "Resident memory of each process. The alert MemoryNearLimit knows the limits.",
            metrics((f"max by (job, instance) (distillery_process_resident_memory_bytes{ROLES})", "{{job}} {{instance}}")),
            unit="bytes",
        ),
    ]


def system():
    panels = [*system_now(), *calls_and_processes()]
    role = choice("role", "Role", "label_values(distillery_build_info, job)")
    return dashboard("system", "System", "Processes and their calls.", panels, ["prometheus"], [role])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="write nothing, and fail where a file is stale")
    check = arguments.parse_args().check
    made = {f"{build.__name__}.json": build() for build in (jobs, harvest, training, serving, system)}
    texts = {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in made.items()}
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    if check:
        stale = sorted(name for name in texts.keys() | there.keys() if texts.get(name) != there.get(name))
        if stale:
            sys.exit(f"stale: {', '.join(stale)}: run python3 deploy/grafana/build.py and commit what it writes")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in there.keys() - texts.keys():
        (FOLDER / name).unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
