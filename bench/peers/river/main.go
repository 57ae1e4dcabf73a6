// River's part of the benchmark: see ../protocol.py for what is asked on standard input.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"os"
	"sync"
	"time"

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
}

type asked struct {
	Do     string `json:"do"`
	Count  int    `json:"count"`
	FromMs int64  `json:"from_ms"`
	ToMs   int64  `json:"to_ms"`
}

type engagement struct {
	PodID          string `json:"pod_id"`
	PostID         string `json:"post_id"`
	MemberID       string `json:"member_id"`
	EngagementType string `json:"engagement_type"`
}

func (engagement) Kind() string { return "engagement" }

type found struct {
	FirstMs  int64   `json:"first_ms"`
	LastMs   int64   `json:"last_ms"`
	Lateness []int64 `json:"lateness_ms"`
}

var (
	mutex sync.Mutex
	seen  found
)

type worker struct {
	river.WorkerDefaults[engagement]
}

func (*worker) Work(_ context.Context, job *river.Job[engagement]) error {
	now := time.Now().UnixMilli()
	mutex.Lock()
	defer mutex.Unlock()
	if len(seen.Lateness) == 0 {
		seen.FirstMs = now
	}
	seen.LastMs = now
	seen.Lateness = append(seen.Lateness, now-job.ScheduledAt.UnixMilli())
	return nil
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func jobs(count int, fromMs, toMs int64) []river.InsertManyParams {
	pods, members := make([]string, 100), make([]string, 2000)
	for n := range pods {
		pods[n] = uuid()
	}
	for n := range members {
		members[n] = uuid()
	}
	made := make([]river.InsertManyParams, count)
	post := ""
	for n := range made {
		if n%20 == 0 {
			post = uuid()
		}
		kind := "like"
		if n%2 == 0 {
			kind = "comment"
		}
		due := time.UnixMilli(fromMs + (toMs-fromMs)*int64(n)/int64(count))
		made[n] = river.InsertManyParams{
			Args:       engagement{pods[n%100], post, members[n*7919%2000], kind},
			InsertOpts: &river.InsertOpts{ScheduledAt: due},
		}
	}
	return made
}

func schedule(ctx context.Context, client *river.Client[pgx.Tx], chunk int, a asked) float64 {
	all := jobs(a.Count, a.FromMs, a.ToMs)
	began := time.Now()
	for n := 0; n < len(all); n += chunk {
		if _, err := client.InsertManyFast(ctx, all[n:min(n+chunk, len(all))]); err != nil {
			log.Fatal(err)
		}
	}
	return time.Since(began).Seconds()
}

func fired(count int) found {
	for {
		mutex.Lock()
		if len(seen.Lateness) >= count {
			all := seen
			seen = found{}
			mutex.Unlock()
			return all
		}
		mutex.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
}

func main() {
	ctx := context.Background()
	var c config
	if err := json.Unmarshal([]byte(os.Args[1]), &c); err != nil {
		log.Fatal(err)
	}
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
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var a asked
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			log.Fatal(err)
		}
		var answer any = struct{}{}
		switch a.Do {
		case "schedule":
			answer = map[string]float64{"seconds": schedule(ctx, client, c.Chunk, a)}
		case "work":
			if err := client.Start(ctx); err != nil {
				log.Fatal(err)
			}
		case "fired":
			answer = fired(a.Count)
		}
		line, _ := json.Marshal(answer)
		fmt.Println(string(line))
		if a.Do == "stop" {
			os.Exit(0)
		}
	}
}
