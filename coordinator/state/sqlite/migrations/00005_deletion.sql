-- +goose Up
ALTER TABLE prefixes ADD COLUMN deleted INTEGER;
ALTER TABLE streams ADD COLUMN replaced TEXT NOT NULL DEFAULT '[]';

DROP INDEX prefixes_newest;
CREATE INDEX prefixes_newest ON prefixes (project, created, seq);
CREATE INDEX prefixes_deleted ON prefixes (deleted) WHERE deleted IS NOT NULL;
CREATE INDEX tasks_dead ON tasks (seq) WHERE dead IS NOT NULL;

CREATE TABLE folders (
    parent  INTEGER NOT NULL,
    segment TEXT    NOT NULL,
    label   INTEGER NOT NULL,
    PRIMARY KEY (parent, segment)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage (
    project       TEXT    NOT NULL PRIMARY KEY,
    prefixes      INTEGER NOT NULL,
    streams       INTEGER NOT NULL,
    entries       INTEGER NOT NULL,
    content_bytes INTEGER NOT NULL,
    stored_bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO usage SELECT p.project, count(*), 0, 0, 0, 0 FROM prefixes p GROUP BY p.project;
UPDATE usage SET (streams, entries, content_bytes, stored_bytes) =
    (SELECT count(*), coalesce(sum(entry_count), 0), coalesce(sum(content_size), 0), coalesce(sum(stream_size + index_size), 0)
     FROM streams s WHERE s.project = usage.project);

CREATE TABLE leases (
    name   TEXT    NOT NULL PRIMARY KEY,
    holder TEXT    NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id        TEXT    NOT NULL PRIMARY KEY,
    hash      BLOB    NOT NULL UNIQUE,
    name      TEXT    NOT NULL,
    scopes    TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER,
    last_used INTEGER
) STRICT;
