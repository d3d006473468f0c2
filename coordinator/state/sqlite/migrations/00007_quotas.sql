-- +goose Up
CREATE INDEX streams_archived ON streams (project, archived, content_size) WHERE archived IS NOT NULL;
