package registration

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/daybook-dev/daybook/coordinator/config"
	"github.com/daybook-dev/daybook/coordinator/state"
	"github.com/daybook-dev/daybook/internal/fault"
	"github.com/daybook-dev/daybook/logs/types"
)

// Quotas are checked here, where whoever wants to send logs can still be told and can come again. What is registered already is
// never held up: a Collector that has to wait for one project would let all others wait.

// volumeAge is how long a sum of what a project archived is used.
const volumeAge = time.Minute

// volumes remember what projects archived in 24 hours.
type volumes struct {
	mu sync.Mutex
	of map[types.Project]volume
}

type volume struct {
	bytes int64
	at    time.Time
}

// volume returns how many bytes a project archived in 24 hours, as of the last minute; zero if it has no quota of that. The sum is
// not taken in the transaction of a registration, which it would hold up.
func (s *Service) volume(ctx context.Context, p *config.Project) (int64, error) {
	if p.Quotas.BytesPerDay == 0 {
		return 0, nil
	}
	s.volumes.mu.Lock()
	v, ok := s.volumes.of[p.Name]
	s.volumes.mu.Unlock()
	now := time.Now()
	if ok && now.Sub(v.at) < volumeAge {
		return v.bytes, nil
	}
	sum, err := s.store.ArchivedSince(ctx, p.Name, now.Add(-24*time.Hour))
	if err != nil {
		return 0, err
	}
	s.volumes.mu.Lock()
	defer s.volumes.mu.Unlock()
	s.volumes.of[p.Name] = volume{bytes: sum, at: now}
	return sum, nil
}

// checkQuotas refuses a new prefix of a project that has used up a quota. volume is what it archived.
func checkQuotas(tx state.Tx, p *config.Project, volume int64, now time.Time) error {
	if most := p.Quotas.BytesPerDay; most > 0 && volume >= most {
		return exhausted(p, "bytes_per_day", humanize.IBytes(uint64(most)), "were archived in the last 24 hours")
	}
	if most := p.Quotas.PrefixesPerHour; most > 0 {
		n, err := tx.RecentPrefixes(p.Name, now.Add(-time.Hour), most)
		if err != nil {
			return err
		}
		if n >= most {
			return exhausted(p, "prefixes_per_hour", strconv.FormatInt(most, 10), "were registered in the last hour")
		}
	}
	if most := p.Quotas.OpenStreams; most > 0 {
		n, err := tx.OpenStreams(p.Name, most)
		if err != nil {
			return err
		}
		if n >= most {
			return exhausted(p, "open_streams", strconv.FormatInt(most, 10), "are open")
		}
	}
	return nil
}

func exhausted(p *config.Project, quota, most, what string) error {
	return fault.New(fault.Exhausted, "the quota %s of project %s is used up: %s %s; try again later, or have the quota raised", quota, p.Name, most, what)
}
