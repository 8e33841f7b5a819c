package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"html/template"
	"log"
	"net/http"

	"github.com/jackc/pgx/v5"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// product is a row of the table products.
type product struct {
	Name        string
	Description string
	Cents       int
	Stock       int
}

// Price is the price as people read it.
func (p product) Price() string { return fmt.Sprintf("%d.%02d", p.Cents/100, p.Cents%100) }

// shop answers requests from the database at the URL.
type shop struct{ database string }

func (s shop) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	return mux
}

func (s shop) index(w http.ResponseWriter, r *http.Request) {
	products, err := s.products(r.Context())
	if err != nil {
		log.Print(err)
		http.Error(w, "the database does not answer; see: locald logs db", http.StatusServiceUnavailable)
		return
	}
	var body bytes.Buffer
	if err := page.Execute(&body, products); err != nil {
		log.Print(err)
		http.Error(w, "the page cannot be shown; see: locald logs web", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = body.WriteTo(w)
}

// products connects anew each time, so a restart of the database is not noticed.
func (s shop) products(ctx context.Context) ([]product, error) {
	conn, err := pgx.Connect(ctx, s.database)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "SELECT name, description, cents, stock FROM products ORDER BY id")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[product])
}
