package access

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// cacheLife is how long a credential is good after it was verified: one that is revoked ends within that.
	cacheLife = 2 * time.Second
	// cacheSize is how many verified credentials are remembered.
	cacheSize = 4096
)

// verified is what was found out of a credential not long ago.
type verified struct {
	principal Principal
	expires   time.Time // of the credential; zero if that is not known
	until     time.Time // of the cache
}

// cache remembers credentials that are good, by their sums. What is not good is not remembered: it could push out what is.
type cache struct {
	mu   sync.Mutex
	good map[[sha256.Size]byte]verified
}

func (c *cache) get(sum [sha256.Size]byte, now time.Time) (verified, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.good[sum]
	return v, ok && !now.After(v.until)
}

func (c *cache) put(sum [sha256.Size]byte, v verified, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good == nil {
		c.good = make(map[[sha256.Size]byte]verified)
	}
	if len(c.good) >= cacheSize {
		for k, old := range c.good {
			if now.After(old.until) {
				delete(c.good, k)
			}
		}
		if len(c.good) >= cacheSize {
			clear(c.good) // they can be verified again
		}
	}
	c.good[sum] = v
}

func (c *cache) remove(sum [sha256.Size]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.good, sum)
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.good)
}
