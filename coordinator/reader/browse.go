package reader

import (
	"cmp"
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/daybook-dev/daybook/api/daybookv1"
	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// ListProjects returns the projects that have a prefix, and in which the caller may find something.
func (l *daybookLogs) ListProjects(ctx context.Context, _ *daybookv1.ListProjectsRequest) (*daybookv1.ListProjectsResponse, error) {
	resp, err := l.listProjects(ctx)
	return resp, fault.GRPC(err)
}

func (l *daybookLogs) listProjects(ctx context.Context) (*daybookv1.ListProjectsResponse, error) {
	projects, err := l.reader.store.Projects(ctx)
	if err != nil {
		return nil, err
	}
	resp := new(daybookv1.ListProjectsResponse)
	for _, p := range projects {
		switch _, err := l.reader.sight(ctx, p, access.List); {
		case err == nil:
			resp.Projects = append(resp.Projects, string(p))
		case !refused(err):
			return nil, err
		}
	}
	if len(resp.Projects) > 0 {
		return resp, nil
	}
	// Who may find nothing anywhere is told so.
	return resp, l.reader.access.Anywhere(ctx, access.List)
}

// ListPrefixes returns the prefixes that match a pattern, newest first, with their streams.
func (l *daybookLogs) ListPrefixes(ctx context.Context, r *daybookv1.ListPrefixesRequest) (*daybookv1.ListPrefixesResponse, error) {
	resp, err := l.listPrefixes(ctx, r)
	return resp, fault.GRPC(err)
}

func (l *daybookLogs) listPrefixes(ctx context.Context, r *daybookv1.ListPrefixesRequest) (*daybookv1.ListPrefixesResponse, error) {
	q, err := prefixQuery(r)
	if err != nil {
		return nil, err
	}
	sight, err := l.reader.sight(ctx, q.Project, access.List)
	if err != nil {
		return nil, err
	}
	found, err := l.reader.store.FindPrefixes(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := new(daybookv1.ListPrefixesResponse)
	size := 0
	for i, p := range found {
		ok, err := sight.allows(ctx, p.Realm)
		if err != nil {
			return nil, err
		}
		if ok {
			v, err := l.prefix(ctx, p)
			if err != nil {
				return nil, err
			}
			resp.Prefixes = append(resp.Prefixes, v)
			size += proto.Size(v)
		}
		if i+1 == q.Limit || size > maxPageBytes {
			resp.NextPageToken = positionToken(p.Position())
			break
		}
	}
	return resp, nil
}

// prefixQuery checks a request.
func prefixQuery(r *daybookv1.ListPrefixesRequest) (q state.PrefixQuery, err error) {
	q = state.PrefixQuery{Project: types.Project(r.GetProject()), Limit: pageSize(r.GetPageSize())}
	if err := q.Project.Validate(); err != nil {
		return q, fault.Wrap(fault.Invalid, err)
	}
	if q.Prefix, err = state.ParsePattern(r.GetPattern()); err != nil {
		return q, err
	}
	if q.Since, err = instant("since", r.GetSince()); err != nil {
		return q, err
	}
	if q.Until, err = instant("until", r.GetUntil()); err != nil {
		return q, err
	}
	q.After, err = parsePositionToken(r.GetPageToken())
	return q, err
}

func (l *daybookLogs) prefix(ctx context.Context, p *state.Prefix) (*daybookv1.Prefix, error) {
	only, err := state.ParsePattern(string(p.Prefix))
	if err != nil {
		return nil, err
	}
	streams, _, err := l.reader.store.FindStreams(ctx, state.StreamQuery{Project: p.Project, Prefix: only, Limit: maxPrefixStreams})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(streams, func(a, b *state.Stream) int { return cmp.Compare(a.Name, b.Name) })
	v := &daybookv1.Prefix{Project: string(p.Project), Prefix: string(p.Prefix), Created: timestamppb.New(p.Created)}
	for _, s := range streams {
		d, err := l.reader.describe(ctx, s)
		if fault.Is(err, fault.NotFound) {
			continue // it was removed since it was found
		}
		if err != nil {
			return nil, err
		}
		v.Streams = append(v.Streams, d)
	}
	return v, nil
}

// ListFolders returns the folders of prefixes within a folder, by name. They belong to no realm, so the caller must be allowed to list
// all of the project.
func (l *daybookLogs) ListFolders(ctx context.Context, r *daybookv1.ListFoldersRequest) (*daybookv1.ListFoldersResponse, error) {
	resp, err := l.listFolders(ctx, r)
	return resp, fault.GRPC(err)
}

func (l *daybookLogs) listFolders(ctx context.Context, r *daybookv1.ListFoldersRequest) (*daybookv1.ListFoldersResponse, error) {
	q := state.FolderQuery{
		Project: types.Project(r.GetProject()), Parent: types.StreamName(strings.Trim(r.GetParent(), "/")), Limit: pageSize(r.GetPageSize()),
	}
	if err := q.Project.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if q.Parent != "" {
		if err := q.Parent.Validate(); err != nil {
			return nil, fault.New(fault.Invalid, "parent: %w", err)
		}
	}
	if err := l.reader.access.Check(ctx, q.Project, root, access.List); err != nil {
		return nil, err
	}
	var err error
	if q.After, err = parseNameToken(r.GetPageToken()); err != nil {
		return nil, err
	}
	found, err := l.reader.store.Folders(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := new(daybookv1.ListFoldersResponse)
	for _, f := range found {
		v := &daybookv1.Folder{Name: f.Name, Path: string(f.Path), Streams: int64(f.Streams), Prefix: f.Prefix, Folders: f.Folders}
		if !f.Newest.IsZero() {
			v.Newest = timestamppb.New(f.Newest)
		}
		resp.Folders = append(resp.Folders, v)
	}
	if len(found) == q.Limit {
		resp.NextPageToken = nameToken(found[len(found)-1].Name)
	}
	return resp, nil
}

// GetUsage returns what a project holds.
func (l *daybookLogs) GetUsage(ctx context.Context, r *daybookv1.GetUsageRequest) (*daybookv1.Usage, error) {
	project := types.Project(r.GetProject())
	if err := l.reader.access.Check(ctx, project, root, access.List); err != nil {
		return nil, fault.GRPC(err)
	}
	u, err := l.reader.store.Usage(ctx, project)
	if err != nil {
		return nil, fault.GRPC(err)
	}
	return &daybookv1.Usage{
		Project: string(project), Prefixes: u.Prefixes, Streams: u.Streams, ArchivedEntries: u.Archived.Entries,
		ArchivedContentBytes: u.Archived.ContentSize, ArchivedStoredBytes: u.Archived.StoredSize,
	}, nil
}

// nameToken is the page token of a listing by name: the last name of the page.
func nameToken(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

func parseNameToken(token string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil && (len(b) == 0 || types.StreamName(b).Validate() == nil) {
		return string(b), nil
	}
	return "", errPageToken
}
