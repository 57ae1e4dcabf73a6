// River's part of the benchmark.
package main

import (
	"context"
	"log"
	"log/slog"
	"os"
	"sync"
	"time"

	"bench/go_driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type config struct {
	URL         string `json:"url"`
	Concurrency int    `json:"concurrency"`
	PollMs      int    `json:"poll_ms"`
	Chunk       int    `json:"chunk"`
	Enqueuers   int    `json:"enqueuers"`
}

type engagement struct {
	PodID          string `json:"pod_id"`
	PostID         string `json:"post_id"`
	MemberID       string `json:"member_id"`
	EngagementType string `json:"engagement_type"`
}

func (engagement) Kind() string { return "engagement" }

type worker struct {
	river.WorkerDefaults[engagement]
}

func (*worker) Work(_ context.Context, job *river.Job[engagement]) error {
	go_driver.Started(job.ScheduledAt.UnixMilli())
	return nil
}

func schedule(
	ctx context.Context, client *river.Client[pgx.Tx], c config, timers []go_driver.Timer,
) time.Duration {
	all := make([]river.InsertManyParams, len(timers))
	for n, t := range timers {
		all[n] = river.InsertManyParams{
			Args:       engagement{t.PodID, t.PostID, t.MemberID, t.EngagementType},
			InsertOpts: &river.InsertOpts{ScheduledAt: time.UnixMilli(t.DueMs)},
		}
	}
	var group sync.WaitGroup
	began := time.Now()
	for first := range c.Enqueuers {
		group.Go(func() {
			for n := first * c.Chunk; n < len(all); n += c.Enqueuers * c.Chunk {
				if _, err := client.InsertManyFast(ctx, all[n:min(n+c.Chunk, len(all))]); err != nil {
					log.Fatal(err)
				}
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

func main() {
	ctx := context.Background()
	var c config
	go_driver.Configure(&c)
	pool, err := pgxpool.New(ctx, c.URL)
	if err != nil {
		log.Fatal(err)
	}
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		log.Fatal(err)
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{})
	options := &river.Config{
		Logger:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: c.Concurrency}},
		Workers: workers,
	}
	if c.PollMs > 0 {
		options.FetchCooldown = time.Duration(c.PollMs) * time.Millisecond
		options.FetchPollInterval = time.Duration(c.PollMs) * time.Millisecond
	}
	client, err := river.NewClient(driver, options)
	if err != nil {
		log.Fatal(err)
	}
	go_driver.Serve(
		func(timers []go_driver.Timer) time.Duration { return schedule(ctx, client, c, timers) },
		func() error { return client.Start(ctx) },
	)
}
