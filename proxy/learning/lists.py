"""Ranking lists from opinions: positives, negatives, and which part a query belongs to; in DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from proxy.learning.opinions import document_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.learning.database import Database
    from proxy.learning.mining_plan import MiningPlan

_ORDER = {"positive": 0, "voted down": 1, "skipped": 2, "unclicked": 3, "other": 4}
"""Roles of documents, as lists have them."""
_NEVER = 4_000_000_000_000_000
"""Microseconds."""
SURE_SKIPS = 2
"""Users who saw a document and passed over it, from which on no model is asked whether it is a negative."""


class Candidate(msgspec.Struct, frozen=True):
    """A document of a list that is no positive."""

    text: str
    role: str
    is_sure: bool
    """Whether users are known to have rejected it."""


class Draft(msgspec.Struct, frozen=True):
    """A list, before any model has looked at it."""

    query: str
    is_held_out: bool
    at: float
    weight: float
    """Mean propensity weight of its positives."""
    positives: list[str]
    """Those of most users first."""
    others: list[Candidate]
    """Nearest to a positive first: voted down, skipped, unclicked."""


def label(db: Database, plan: MiningPlan) -> dict[str, int]:
    """Make ``labels``: what a document of a query is, over all users. Returns what was left out.

    A document's label is the sum of its users' opinions, each with its weight; down-votes count against.
    """
    db.run(
        f"""
        CREATE TABLE labels AS
        WITH opinion AS (
            SELECT q, doc, sum(CASE WHEN up THEN weight ELSE -weight END) AS label, sum(weight) FILTER (up) AS weight,
                count(*) FILTER (up) AS ups
            FROM kept GROUP BY q, doc
        ), left_out AS (
            SELECT q, doc, count(*) FILTER (is_skipped) AS skips, min(rank) AS rank FROM passed GROUP BY q, doc
        )
        SELECT q, doc, coalesce(label, 0) AS label, weight, ups, coalesce(skips, 0) AS skips, rank,
            CASE WHEN label > 1e-9 THEN 'positive' WHEN label < -1e-9 THEN 'voted down'
                WHEN label IS NOT NULL THEN 'tied' WHEN skips > 0 THEN 'skipped'
                WHEN rank <= {plan.first_places} THEN 'unclicked' ELSE 'deep' END AS role
        FROM opinion FULL JOIN left_out USING (q, doc)
        """
    )
    return {
        "documents that as many users call good as bad": db.count("SELECT count(*) FROM labels WHERE role = 'tied'")
    }


def split(db: Database, plan: MiningPlan) -> int | None:
    """Make ``lists``: each query with a positive, and its part. Returns since when queries are held out.

    Held out are the queries that were asked last for the first time, near-duplicates together. In microseconds.
    """
    db.run(
        """
        CREATE TABLE lists AS
        SELECT q, arg_min(query, row(moment, query)) AS query, min(first_at) AS first_at,
            min(near_at) AS near_at, any_value(weight) AS weight, false AS is_held_out
        FROM queries JOIN (
            SELECT q, sum(weight) / sum(ups) AS weight FROM labels WHERE role = 'positive' GROUP BY q
        ) USING (q) GROUP BY q
        """
    )
    total = db.count("SELECT count(*) FROM lists")
    (since,) = db.one(
        f"""SELECT min(near_at) FROM (
            SELECT near_at, sum(count(*)) OVER (ORDER BY near_at DESC) AS n FROM lists GROUP BY near_at
        ) WHERE n <= {plan.held_out_share * total + 0.5}"""
    )
    if since is None:
        return None
    db.run("UPDATE lists SET is_held_out = true WHERE near_at >= ?", since)
    return int(since)


def sample(db: Database, plan: MiningPlan) -> dict[str, int]:
    """Leave lists to train on out, by hash, above the most that are wanted."""
    if plan.max_lists is None:
        return {}
    where = f"q IN (SELECT q FROM lists WHERE NOT is_held_out ORDER BY hash(q), q OFFSET {plan.max_lists})"
    found = db.count(f"SELECT count(*) FROM lists WHERE {where}")
    db.run(f"DELETE FROM lists WHERE {where}")
    return {"lists above the most that are wanted": found}


def gather(db: Database, since: int | None) -> dict[str, int]:
    """Make ``members``, the documents of each list, and ``texts``, what they read. Returns what was left out.

    A held-out list has whatever was shown for its query, by requests that nothing was said of too: of the log only what
    came since the first of them is read.
    """
    db.run("CREATE TABLE members (q UBIGINT, doc UBIGINT, role VARCHAR, label DOUBLE, skips BIGINT, rank BIGINT)")
    db.run(
        """
        INSERT INTO members SELECT q, doc, role, label, skips, rank FROM labels JOIN lists USING (q)
        WHERE role = 'positive' OR (NOT is_held_out AND role IN ('voted down', 'skipped', 'unclicked'))
        """
    )
    if since is not None:
        db.run(
            f"""
            CREATE TABLE judged AS
            SELECT DISTINCT q, {document_of("coalesce(each.text, passages.text)")} AS doc
            FROM (
                SELECT q, unnest(list_select(documents, places)) AS text,
                    unnest(list_select(document_ids, places)) AS id
                FROM (
                    SELECT q, documents, document_ids, list_transform("order"[1:sent], lambda x: x + 1) AS places
                    FROM exposures JOIN queries USING (query)
                        SEMI JOIN (SELECT q FROM lists WHERE is_held_out) USING (q)
                    WHERE came >= make_timestamptz({since}) AND is_forced IS FALSE
                )
            ) AS each LEFT JOIN passages ON each.text IS NULL AND passages.id = each.id
            """
        )
        db.run(
            """
            INSERT INTO members SELECT q, doc, 'other', 0, 0, NULL FROM judged
            ANTI JOIN (SELECT q, doc FROM members) AS known USING (q, doc) WHERE doc IS NOT NULL
            """
        )
    _read_texts(db, since if since is not None else _NEVER)
    return {"lists in which all that was shown was chosen": _drop_lonely(db)}


def _read_texts(db: Database, since: int) -> None:
    """Read the texts of the members: a second time through the log, so that no text has to be carried till here."""
    db.run(
        f"""
        CREATE TABLE texts AS
        WITH raw AS (
            SELECT DISTINCT text FROM (
                SELECT unnest(documents) AS text FROM exposures
                WHERE hash(request_id) IN (SELECT request FROM served)
                UNION ALL
                SELECT unnest(documents) FROM exposures
                WHERE came >= make_timestamptz({since}) AND query IN (
                    SELECT queries.query FROM queries JOIN lists USING (q) WHERE is_held_out
                )
            )
            UNION ALL SELECT text FROM passages
        ), known AS (SELECT {document_of("text")} AS doc, text FROM raw)
        SELECT doc, min(text) AS text FROM known SEMI JOIN members USING (doc) GROUP BY doc
        """
    )


def _drop_lonely(db: Database) -> int:
    where = "q NOT IN (SELECT q FROM members WHERE role <> 'positive')"
    found = db.count(f"SELECT count(*) FROM lists WHERE is_held_out AND {where}")
    db.run(f"DELETE FROM lists WHERE is_held_out AND {where}")
    return found


def drafts(db: Database) -> Iterator[Draft]:
    """Yield the lists, those to train on first, the earliest first."""
    roles = " ".join(f"WHEN '{role}' THEN {place}" for role, place in _ORDER.items())
    sql = f"""
        SELECT lists.q, query, is_held_out, lists.first_at / 1e6 AS first_seconds, weight, role, skips, text
        FROM lists JOIN members USING (q) JOIN texts USING (doc)
        ORDER BY is_held_out, lists.first_at, lists.q, CASE role {roles} END, label DESC, rank, doc
    """
    rows: list[dict[str, Any]] = []
    for batch in db.batches(sql):
        for row in batch.to_pylist():
            if rows and rows[0]["q"] != row["q"]:
                yield _draft(rows)
                rows = []
            rows.append(row)
    if rows:
        yield _draft(rows)


def _draft(rows: list[dict[str, Any]]) -> Draft:
    first = rows[0]
    return Draft(
        query=first["query"],
        is_held_out=first["is_held_out"],
        at=first["first_seconds"],
        weight=first["weight"],
        positives=[row["text"] for row in rows if row["role"] == "positive"],
        others=[
            Candidate(row["text"], row["role"], row["role"] == "voted down" or row["skips"] >= SURE_SKIPS)
            for row in rows
            if row["role"] != "positive"
        ],
    )
