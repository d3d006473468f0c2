-- The columns are explained in docs/formats/state.md. Times are microseconds since 1970, NULL when unset. Text compares by its bytes.

-- +goose Up
CREATE TABLE prefixes (
    seq      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project  TEXT COLLATE "C" NOT NULL,
    prefix   TEXT COLLATE "C" NOT NULL,
    realm    TEXT   NOT NULL,
    secret   BYTEA  NOT NULL,
    op_nonce BYTEA  NOT NULL,
    source   TEXT   NOT NULL,
    created  BIGINT NOT NULL,
    expires  BIGINT NOT NULL
);

-- A prefix may be longer than an index takes.
CREATE UNIQUE INDEX prefixes_name ON prefixes (project, sha256(prefix::bytea));
-- The order of the primary key would tempt the planner to read the prefixes of all projects.
CREATE INDEX prefixes_newest ON prefixes (project, (-seq));

CREATE TABLE streams (
    seq            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project        TEXT COLLATE "C" NOT NULL,
    id             TEXT COLLATE "C" NOT NULL,
    prefix         BIGINT NOT NULL REFERENCES prefixes (seq),
    name           TEXT COLLATE "C" NOT NULL,
    proto_version  TEXT   NOT NULL,
    descriptor     BYTEA  NOT NULL,
    created        BIGINT NOT NULL,
    updated        BIGINT NOT NULL,
    -- Counts the changes of the row, for those who wait for one.
    version        BIGINT NOT NULL DEFAULT 1,

    phase          INTEGER NOT NULL,
    end_index      BIGINT,
    end_reason     TEXT   NOT NULL,
    ended          BIGINT,
    purged         BIGINT,

    archived       BIGINT,
    stream_url     TEXT   NOT NULL,
    stream_size    BIGINT NOT NULL,
    index_url      TEXT   NOT NULL,
    index_size     BIGINT NOT NULL,
    archived_index BIGINT NOT NULL,
    entry_count    BIGINT NOT NULL,
    content_size   BIGINT NOT NULL,
    lines          BIGINT NOT NULL,
    missing        TEXT   NOT NULL,
    -- The waiting processes ask for ids alone.
    UNIQUE (id, project)
);

CREATE INDEX streams_newest ON streams (project, created, seq);
CREATE INDEX streams_prefix ON streams (prefix, created, seq);
CREATE INDEX streams_phase ON streams (project, phase, created, seq);

CREATE TABLE labels (
    label   BIGINT NOT NULL,
    created BIGINT NOT NULL,
    stream  BIGINT NOT NULL,
    PRIMARY KEY (label, created, stream)
);

CREATE TABLE tasks (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream     BIGINT  NOT NULL REFERENCES streams (seq),
    kind       INTEGER NOT NULL,
    available  BIGINT  NOT NULL,
    lease_end  BIGINT,
    attempts   INTEGER NOT NULL,
    failures   INTEGER NOT NULL,
    last_error TEXT    NOT NULL,
    dead       BIGINT,
    UNIQUE (stream, kind)
);

CREATE INDEX tasks_available ON tasks (available) WHERE dead IS NULL;
CREATE INDEX tasks_leased ON tasks (lease_end) WHERE lease_end IS NOT NULL;
