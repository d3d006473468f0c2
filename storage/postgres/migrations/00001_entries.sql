-- The columns are explained in docs/formats/entries-postgres.md.

-- +goose Up
CREATE TABLE streams (
    seq    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id     BYTEA  NOT NULL UNIQUE CHECK (octet_length(id) = 32),
    next   BIGINT NOT NULL DEFAULT 0,
    high   BIGINT NOT NULL DEFAULT -1,
    change BIGINT NOT NULL DEFAULT 0
-- A row changes with every batch. There is room for its next version on the same page.
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE blocks (
    stream BIGINT  NOT NULL,
    last   BIGINT  NOT NULL,
    first  BIGINT  NOT NULL,
    size   INTEGER NOT NULL,
    data   BYTEA   NOT NULL,
    PRIMARY KEY (stream, last)
-- Space of expunged streams is used again soon.
) WITH (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
-- It is compressed already.
ALTER TABLE blocks ALTER data SET STORAGE EXTERNAL;

CREATE TABLE checkpoints (
    reader   TEXT COLLATE "C" PRIMARY KEY,
    position BIGINT NOT NULL
) WITH (fillfactor = 50);
