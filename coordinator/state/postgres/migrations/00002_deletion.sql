-- +goose Up
ALTER TABLE prefixes ADD COLUMN deleted BIGINT;
ALTER TABLE streams ADD COLUMN replaced TEXT NOT NULL DEFAULT '[]';

DROP INDEX prefixes_newest;
CREATE INDEX prefixes_newest ON prefixes (project, created, seq);
CREATE INDEX prefixes_deleted ON prefixes (deleted) WHERE deleted IS NOT NULL;
CREATE INDEX tasks_dead ON tasks (seq) WHERE dead IS NOT NULL;

CREATE TABLE folders (
    parent  BIGINT NOT NULL,
    segment TEXT COLLATE "C" NOT NULL,
    label   BIGINT NOT NULL,
    PRIMARY KEY (parent, segment)
);

-- Each connection counts in a row of its own, as far as there are enough, so that updates do not wait for each other.
CREATE TABLE usage (
    project       TEXT COLLATE "C" NOT NULL,
    shard         INTEGER NOT NULL,
    prefixes      BIGINT NOT NULL,
    streams       BIGINT NOT NULL,
    entries       BIGINT NOT NULL,
    content_bytes BIGINT NOT NULL,
    stored_bytes  BIGINT NOT NULL,
    PRIMARY KEY (project, shard)
) WITH (fillfactor = 50);

INSERT INTO usage SELECT p.project, 0, count(*), 0, 0, 0, 0 FROM prefixes p GROUP BY p.project;
UPDATE usage SET (streams, entries, content_bytes, stored_bytes) =
    (SELECT count(*), coalesce(sum(entry_count), 0), coalesce(sum(content_size), 0), coalesce(sum(stream_size + index_size), 0)
     FROM streams s WHERE s.project = usage.project);

CREATE TABLE leases (
    name   TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    until  BIGINT NOT NULL
);

CREATE TABLE tokens (
    id        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    hash      BYTEA  NOT NULL UNIQUE,
    name      TEXT   NOT NULL,
    scopes    TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT,
    last_used BIGINT
);

CREATE INDEX tokens_created ON tokens (created, id);
