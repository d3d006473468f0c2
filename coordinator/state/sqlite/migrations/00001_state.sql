-- The columns are explained in docs/formats/state.md. Times are microseconds since 1970, NULL when unset.

-- +goose Up
CREATE TABLE prefixes (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    project  TEXT    NOT NULL,
    prefix   TEXT    NOT NULL,
    realm    TEXT    NOT NULL,
    secret   BLOB    NOT NULL,
    op_nonce BLOB    NOT NULL,
    source   TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    UNIQUE (project, prefix)
) STRICT;

CREATE INDEX prefixes_newest ON prefixes (project, seq);

CREATE TABLE streams (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    project        TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    prefix         INTEGER NOT NULL REFERENCES prefixes (seq),
    name           TEXT    NOT NULL,
    proto_version  TEXT    NOT NULL,
    descriptor     BLOB    NOT NULL,
    created        INTEGER NOT NULL,
    updated        INTEGER NOT NULL,

    phase          INTEGER NOT NULL,
    end_index      INTEGER,
    ended          INTEGER,
    purged         INTEGER,

    archived       INTEGER,
    stream_url     TEXT    NOT NULL,
    stream_size    INTEGER NOT NULL,
    index_url      TEXT    NOT NULL,
    index_size     INTEGER NOT NULL,
    archived_index INTEGER NOT NULL,
    entry_count    INTEGER NOT NULL,
    content_size   INTEGER NOT NULL,
    lines          INTEGER NOT NULL,
    missing        TEXT    NOT NULL,
    UNIQUE (project, id)
) STRICT;

CREATE INDEX streams_newest ON streams (project, seq);
CREATE INDEX streams_prefix ON streams (prefix, seq);

CREATE TABLE tasks (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    stream     INTEGER NOT NULL REFERENCES streams (seq),
    kind       INTEGER NOT NULL,
    available  INTEGER NOT NULL,
    lease_end  INTEGER,
    attempts   INTEGER NOT NULL,
    failures   INTEGER NOT NULL,
    last_error TEXT    NOT NULL,
    dead       INTEGER,
    UNIQUE (stream, kind)
) STRICT;

CREATE INDEX tasks_available ON tasks (available) WHERE dead IS NULL;
CREATE INDEX tasks_leased ON tasks (lease_end) WHERE lease_end IS NOT NULL;
