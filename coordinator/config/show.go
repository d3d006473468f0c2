package config

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// Text returns the configuration as a file that says the same, with the defaults spelled out.
func (c *Config) Text() ([]byte, error) {
	root := mapping{}
	root.put("service", c.Service.node())
	projects := mapping{}
	for _, name := range slices.Sorted(maps.Keys(c.Projects)) {
		projects.put(string(name), c.Projects[name].node())
	}
	root.put("projects", projects.node())
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root.node()); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

func (s *Service) node() *yaml.Node {
	m := mapping{}
	m.put("prefix_expiration", text(formatDuration(s.PrefixExpiration)))
	m.put("allowed_origins", list(s.AllowedOrigins))
	m.put("administrators", list(s.Administrators))
	m.put("services", list(s.Services))
	return m.node()
}

func (p *Project) node() *yaml.Node {
	m := mapping{}
	retention := "forever"
	if p.Retention > 0 {
		retention = formatDuration(p.Retention)
	}
	m.put("retention", text(retention))
	m.put("purge_grace", text(formatDuration(p.PurgeGrace)))
	m.duration("prefix_expiration", p.PrefixExpiration)

	a := mapping{}
	if p.Archive.Bucket != "" {
		a.put("bucket", text(p.Archive.Bucket))
	}
	a.count("stream_range", int64(p.Archive.StreamRange))
	a.count("prefix_range", int64(p.Archive.PrefixRange))
	a.size("byte_range", int64(p.Archive.ByteRange))
	m.part("archive", a)

	q := mapping{}
	q.count("open_streams", p.Quotas.OpenStreams)
	q.size("bytes_per_day", p.Quotas.BytesPerDay)
	q.count("prefixes_per_hour", p.Quotas.PrefixesPerHour)
	m.part("quotas", q)

	access := &yaml.Node{Kind: yaml.SequenceNode}
	for _, g := range p.Access {
		m := mapping{}
		m.put("principals", list(g.Principals))
		if g.Realm != "" {
			m.put("realm", text(g.Realm))
		}
		m.put("permissions", list(g.Permissions))
		access.Content = append(access.Content, m.node())
	}
	if len(p.Access) > 0 {
		m.put("access", access)
	}
	return m.node()
}

// mapping is a mapping that is being made. What is not set is left out.
type mapping []*yaml.Node

func (m *mapping) put(name string, value *yaml.Node) { *m = append(*m, text(name), value) }

func (m *mapping) duration(name string, d time.Duration) {
	if d > 0 {
		m.put(name, text(formatDuration(d)))
	}
}

func (m *mapping) count(name string, n int64) {
	if n > 0 {
		value := new(yaml.Node)
		_ = value.Encode(n) // of a number
		m.put(name, value)
	}
}

func (m *mapping) size(name string, n int64) {
	if n > 0 {
		m.put(name, text(formatSize(n)))
	}
}

func (m *mapping) part(name string, of mapping) {
	if len(of) > 0 {
		m.put(name, of.node())
	}
}

func (m mapping) node() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Content: m} }

func text(s string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(s)
	return n
}

func list(items []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, s := range items {
		n.Content = append(n.Content, text(s))
	}
	return n
}
