package reader

import (
	"context"
	"errors"

	"github.com/daybook-dev/daybook/coordinator/access"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// root is the realm whose rules apply to all of a project.
const root = "@root"

// errNoPrefix says that a prefix, or what was asked for by its id, is not there. Callers get what hide or tell makes of it.
var errNoPrefix = fault.New(fault.NotFound, "there is no such prefix or stream")

// hide makes the error of logdog.Logs. That a prefix is not there looks like a lack of permission to everyone: existing tools take
// NotFound for a stream that is still to come, and wait for it (spec coordinator 3.4). They know no DataLoss either.
func (r *Reader) hide(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errNoPrefix):
		err = r.access.Hidden(ctx)
	case fault.Is(err, fault.DataLoss):
		err = fault.Wrap(fault.Internal, err)
	}
	return fault.GRPC(err)
}

// tell makes the error of daybook.v1.Logs. Who has the permission in all of the project may know that a prefix is not there.
func (r *Reader) tell(ctx context.Context, project string, p access.Permission, err error) error {
	if errors.Is(err, errNoPrefix) {
		err = fault.New(fault.NotFound, "there is no such prefix or stream in project %s; daybook ls shows what there is", project)
		if !r.everywhere(ctx, types.Project(project), p) {
			err = r.access.Hidden(ctx)
		}
	}
	return fault.GRPC(err)
}

// everywhere reports whether the caller has the permission in all of the project.
func (r *Reader) everywhere(ctx context.Context, project types.Project, p access.Permission) bool {
	return r.access.Check(ctx, project, root, p) == nil
}

// administrator reports whether the caller sees what is purged. Where everybody may do everything, nobody does so unasked.
func (r *Reader) administrator(ctx context.Context) bool {
	return !access.PrincipalFrom(ctx).Anonymous() && r.access.Check(ctx, "", "", access.Admin) == nil
}

// sight is what a caller may do in the realms of a project, remembered for the time of one call.
type sight struct {
	reader  *Reader
	project types.Project
	wanted  access.Permission
	all     bool
	realms  map[string]bool
}

// sight returns the realms in which the caller has a permission, or the refusal of who has it nowhere in the project.
func (r *Reader) sight(ctx context.Context, project types.Project, p access.Permission) (*sight, error) {
	s := &sight{reader: r, project: project, wanted: p, realms: make(map[string]bool)}
	refusal := r.access.Check(ctx, project, root, p)
	if refusal == nil {
		s.all = true
		return s, nil
	}
	if !refused(refusal) {
		return nil, refusal
	}
	// A realm without rules of its own is as root.
	realms := []string{access.DefaultRealm}
	if settings, err := r.settings.Project(project); err == nil {
		for _, g := range settings.Access {
			realms = append(realms, g.Realm)
		}
	}
	for _, realm := range realms {
		if ok, err := s.allows(ctx, realm); ok || err != nil {
			return s, err
		}
	}
	return nil, refusal
}

// allows reports whether the caller has the permission in a realm.
func (s *sight) allows(ctx context.Context, realm string) (bool, error) {
	if s.all {
		return true, nil
	}
	ok, known := s.realms[realm]
	if !known {
		err := s.reader.access.Check(ctx, s.project, realm, s.wanted)
		if err != nil && !refused(err) {
			return false, err
		}
		ok = err == nil
		s.realms[realm] = ok
	}
	return ok, nil
}

// refused reports whether err says that the caller lacks a permission, rather than that it could not be found out.
func refused(err error) bool {
	return fault.Is(err, fault.Denied) || fault.Is(err, fault.Unauthenticated)
}
