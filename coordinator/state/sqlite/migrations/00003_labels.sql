-- +goose Up
CREATE TABLE labels (
    label   INTEGER NOT NULL,
    created INTEGER NOT NULL,
    stream  INTEGER NOT NULL,
    PRIMARY KEY (label, created, stream)
) STRICT, WITHOUT ROWID;

DROP INDEX streams_newest;
DROP INDEX streams_prefix;
CREATE INDEX streams_newest ON streams (project, created, seq);
CREATE INDEX streams_prefix ON streams (prefix, created, seq);
CREATE INDEX streams_phase ON streams (project, phase, created, seq);
