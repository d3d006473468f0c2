package client

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"google.golang.org/protobuf/proto"

	pb "github.com/daybook-dev/daybook/journal/protocol"
)

// RouteCache is a router that remembers the routes brokers tell, so that calls go to the right broker at once.
//
//	rjc := protocol.NewRoutedJournalClient(jc, client.NewRouteCache(1000, time.Minute))
//
// A route is forgotten after its time, when a broker turns out not to be there, and when others need its place. There should be
// room for as many journals as are in use.
type RouteCache struct {
	ttl time.Duration

	mu     sync.Mutex
	routes *simplelru.LRU[string, cachedRoute]
}

type cachedRoute struct {
	route *pb.Route
	at    time.Time
}

var _ pb.DispatchRouter = (*RouteCache)(nil)

// NewRouteCache returns a cache of at most size routes, each for ttl. It panics unless size is positive.
func NewRouteCache(size int, ttl time.Duration) *RouteCache {
	routes, err := simplelru.NewLRU[string, cachedRoute](size, nil)
	if err != nil {
		panic(err)
	}
	return &RouteCache{ttl: ttl, routes: routes}
}

// Route returns the route of an item, or one without members. It must not be modified.
func (c *RouteCache) Route(_ context.Context, item string) *pb.Route {
	key := routeKey(item)
	c.mu.Lock()
	defer c.mu.Unlock()
	cached, ok := c.routes.Get(key)
	if !ok {
		return pb.NewRoute()
	}
	if time.Since(cached.at) > c.ttl {
		c.routes.Remove(key)
		return pb.NewRoute()
	}
	return cached.route
}

// UpdateRoute remembers a route; nil, and one without members, make it forget the item.
func (c *RouteCache) UpdateRoute(item string, route *pb.Route) {
	key := routeKey(item)
	if len(route.GetMembers()) == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.routes.Remove(key)
		return
	}
	cached := cachedRoute{proto.CloneOf(route), time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.routes.Add(key, cached)
}

// IsNoopRouter returns false.
func (c *RouteCache) IsNoopRouter() bool { return false }

// routeKey makes all references to a journal share what is known of it. Items of other kinds have no metadata segment.
func routeKey(item string) string { return string(pb.Journal(item).StripMeta()) }
