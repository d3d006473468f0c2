package protocol

import "context"

// DispatchRouter knows, or learns, which brokers serve an item. Items are journals without metadata. Implementations are
// safe for concurrent use.
type DispatchRouter interface {
	// Route returns the route of the item, or one without members if it is not known. The route must not be modified.
	Route(ctx context.Context, item string) *Route
	// UpdateRoute tells the router what a broker said about the item; nil means that what is known turned out to be wrong.
	UpdateRoute(item string, route *Route)
	// IsNoopRouter reports whether the router never knows anything.
	IsNoopRouter() bool
}

// RoutedJournalClient is a client of journals that knows routes.
type RoutedJournalClient interface {
	JournalClient
	DispatchRouter
}

// NewRoutedJournalClient composes a client and a router.
func NewRoutedJournalClient(jc JournalClient, dr DispatchRouter) RoutedJournalClient {
	return routedJournalClient{jc, dr}
}

type routedJournalClient struct {
	JournalClient
	DispatchRouter
}

// NoopDispatchRouter is a router that never knows anything: each call goes to the address that was dialed.
type NoopDispatchRouter struct{}

// Route returns a route without members.
func (NoopDispatchRouter) Route(context.Context, string) *Route { return NewRoute() }

// UpdateRoute does nothing.
func (NoopDispatchRouter) UpdateRoute(string, *Route) {}

// IsNoopRouter returns true.
func (NoopDispatchRouter) IsNoopRouter() bool { return true }

// Dispatch says to which broker a call should go. A connection that cannot tell brokers apart ignores it.
type Dispatch struct {
	// Route has the brokers that may serve the call; without members it goes to the address that was dialed.
	Route *Route
	// ProcessID is the only broker that may serve the call, unless it is nil.
	ProcessID *ProcessSpec_ID
	// Item and Router are who learns that the route is wrong, unless Router is nil.
	Item   string
	Router DispatchRouter
}

type dispatchKey struct{}

// WithDispatchRoute returns a context for a call to a member of the route, or to the given one alone.
func WithDispatchRoute(ctx context.Context, route *Route, id *ProcessSpec_ID) context.Context {
	return context.WithValue(ctx, dispatchKey{}, Dispatch{Route: route, ProcessID: id})
}

// WithDispatchDefault returns a context for a call to the address that was dialed.
func WithDispatchDefault(ctx context.Context) context.Context {
	return WithDispatchRoute(ctx, NewRoute(), nil)
}

// WithDispatchItemRoute returns a context for a call to a member of the item's route, which is its primary if requirePrimary
// is set and the primary is known.
func WithDispatchItemRoute(ctx context.Context, router DispatchRouter, item string, requirePrimary bool) context.Context {
	d := Dispatch{Route: router.Route(ctx, item), Item: item, Router: router}
	if p := d.Route.GetPrimary(); requirePrimary && p >= 0 && int(p) < len(d.Route.GetMembers()) {
		d.ProcessID = d.Route.Members[p]
	}
	return context.WithValue(ctx, dispatchKey{}, d)
}

// DispatchOf returns what the context says about where the call should go.
func DispatchOf(ctx context.Context) (Dispatch, bool) {
	d, ok := ctx.Value(dispatchKey{}).(Dispatch)
	return d, ok
}
