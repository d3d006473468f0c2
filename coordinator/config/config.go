// Package config is the configuration authority: what a service and its projects are set to, kept in one YAML file (docs/config.md).
//
//	authority, err := config.Open("daybook.yaml", log) // or config.Default(), which needs no file
//	go authority.Watch(ctx)                            // takes what changes in the file
//	project, err := authority.Project("ci")            // fault.NotFound if it is not configured
//
// A file is taken as a whole or not at all: when it has errors, the version before stays, and all of the errors are told, each
// with its place. A project that is not in the file does not exist; with no file, one exists, local.
//
// A Config is never changed: who holds one may use it as long as they like. All methods of Authority are safe for concurrent use.
package config

import (
	"time"

	"github.com/daybook-dev/daybook/logs/types"
)

// Config is a version of the configuration. It must not be changed.
type Config struct {
	// Version names the file's content: the beginning of its SHA-256, or "default" if there is no file.
	Version  string
	Service  Service
	Projects map[types.Project]*Project
}

// Service is what applies to all projects.
type Service struct {
	// PrefixExpiration is the most time in which streams may be registered below a prefix. Zero is no limit of the service.
	PrefixExpiration time.Duration
	// AllowedOrigins are those of which pages may call logdog.Logs with credentials, as "https://ui.example.com".
	AllowedOrigins []string
	// Administrators are the principals that may do everything, and see what is purged.
	Administrators []string
	// Services are the principals that may call logdog.Services: Collectors and Archivists.
	Services []string
}

// Project is what applies to one project.
type Project struct {
	Name types.Project
	// Retention is how long streams are kept after their end. Zero is for ever.
	Retention time.Duration
	// PurgeGrace is how long what was purged can be taken back. It is positive.
	PurgeGrace time.Duration
	// PrefixExpiration is the most time in which streams may be registered below a prefix. Zero is no limit of the project.
	PrefixExpiration time.Duration
	Archive          Archive
	Quotas           Quotas
	// Access is who may do what. Grants add up.
	Access []Grant
}

// Archive is how finished streams are archived.
type Archive struct {
	// Bucket is the URL of where archives are written; empty is the installation's own. It is opened when it is first
	// needed. What is archived already is read from where it is.
	Bucket string
	// StreamRange, PrefixRange and ByteRange are how far entries in an archive's index are apart, at most: in stream indices, in
	// prefix indices, and in bytes of entries. Zero is no limit of that kind, and the Archivist's own choice if all are zero.
	StreamRange, PrefixRange, ByteRange int
}

// Quotas bound what a project takes. Zero is no limit.
type Quotas struct {
	// OpenStreams is how many streams may be open at once.
	OpenStreams int64
	// BytesPerDay is how many bytes of content may be archived in 24 hours before no prefix is registered any more.
	BytesPerDay int64
	// PrefixesPerHour is how many prefixes may be registered in an hour.
	PrefixesPerHour int64
}

// Grant gives permissions to principals.
type Grant struct {
	// Principals are those of package access, as "user:ada@example.com".
	Principals []string
	// Realm is where the grant applies; empty is everywhere in the project.
	Realm string
	// Permissions are names of permissions. Roles have been resolved to theirs.
	Permissions []string
}

const (
	// defaultProject exists where nothing is configured.
	defaultProject types.Project = "local"
	// defaultPrefixExpiration is the service's, unless it says otherwise.
	defaultPrefixExpiration = 7 * 24 * time.Hour
	// defaultPurgeGrace is every project's, unless it says otherwise.
	defaultPurgeGrace = 7 * 24 * time.Hour
)

func defaults() *Config {
	return &Config{
		Version:  "default",
		Service:  Service{PrefixExpiration: defaultPrefixExpiration},
		Projects: map[types.Project]*Project{defaultProject: {Name: defaultProject, PurgeGrace: defaultPurgeGrace}},
	}
}

// PrefixWindow returns how long streams may be registered below a new prefix of p: the least positive of what the service and
// the project allow, and of what was asked for (spec coordinator 4.4). Zero if none of them is positive.
func (c *Config) PrefixWindow(p *Project, asked time.Duration) time.Duration {
	var least time.Duration
	for _, d := range []time.Duration{c.Service.PrefixExpiration, p.PrefixExpiration, asked} {
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
}
