//! Reads long tables page by page, so that memory does not grow with them.

use std::collections::VecDeque;

use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::super::LedgerError;
use super::tables::{Columns, Table};
use super::{EVENT_COLUMNS, Event};

const PAGE: usize = 1000;

/// Rows of a table in the order of their ids.
pub(in crate::ledger) struct Rows {
    table: &'static Table,
    sql: String,
    next: i64,
    page: VecDeque<(i64, Columns)>,
    ended: bool,
}

impl Rows {
    /// Those of which `which` is true, an expression of SQL.
    pub(in crate::ledger) fn of(table: &'static Table, which: &str) -> Self {
        let sql = format!(
            "SELECT id, {} FROM {} WHERE id >= ? AND ({which}) ORDER BY id LIMIT {PAGE}",
            table.json(""),
            table.name
        );
        Self {
            table,
            sql,
            next: i64::MIN,
            page: VecDeque::new(),
            ended: false,
        }
    }

    /// The next one's id.
    pub(in crate::ledger) async fn peek(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<i64>, LedgerError> {
        if self.page.is_empty() && !self.ended {
            let rows = sqlx::query(AssertSqlSafe(self.sql.clone()))
                .bind(self.next)
                .fetch_all(connection)
                .await?;
            self.ended = rows.len() < PAGE;
            for row in rows {
                let id: i64 = row.try_get(0)?;
                let columns = self.table.columns(row.try_get(1)?);
                let what = || format!("{} {id}", self.table.name);
                self.page
                    .push_back((id, columns.ok_or_else(|| LedgerError::Damaged { what: what() })?));
                self.ended |= id == i64::MAX;
                self.next = id.saturating_add(1);
            }
        }
        Ok(self.page.front().map(|(id, _)| *id))
    }

    /// The next one.
    pub(in crate::ledger) async fn next(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<(i64, Columns)>, LedgerError> {
        self.peek(connection).await?;
        Ok(self.page.pop_front())
    }
}

/// Events, in one order or the other.
pub(in crate::ledger) struct Events {
    sql: String,
    /// The table whose rows they are of, or none for all of the chain in its order.
    table: Option<&'static str>,
    next: (i64, i64),
    page: VecDeque<Event>,
    ended: bool,
}

impl Events {
    /// The chain, from this event on.
    pub(in crate::ledger) fn from(seq: i64) -> Self {
        Self {
            sql: format!("SELECT {EVENT_COLUMNS} FROM event WHERE seq >= ?2 ORDER BY seq LIMIT {PAGE}"),
            table: None,
            next: (0, seq),
            page: VecDeque::new(),
            ended: false,
        }
    }

    /// The events of a table, row by row.
    pub(in crate::ledger) fn of(table: &'static Table) -> Self {
        Self {
            sql: format!(
                "SELECT {EVENT_COLUMNS} FROM event WHERE tbl = ?3 AND (row, seq) >= (?1, ?2) ORDER BY row, seq LIMIT {PAGE}"
            ),
            table: Some(table.name),
            next: (i64::MIN, i64::MIN),
            page: VecDeque::new(),
            ended: false,
        }
    }

    /// The row of the next one.
    pub(in crate::ledger) async fn peek(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<&Event>, LedgerError> {
        if self.page.is_empty() && !self.ended {
            let rows = sqlx::query(AssertSqlSafe(self.sql.clone()))
                .bind(self.next.0)
                .bind(self.next.1)
                .bind(self.table)
                .fetch_all(connection)
                .await?;
            self.ended = rows.len() < PAGE;
            for row in rows {
                let event = Event::read(&row)?;
                self.ended |= event.seq == i64::MAX;
                self.next = (event.row.unwrap_or(i64::MIN), event.seq.saturating_add(1));
                self.page.push_back(event);
            }
        }
        Ok(self.page.front())
    }

    /// The next one.
    pub(in crate::ledger) async fn next(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<Option<Event>, LedgerError> {
        self.peek(connection).await?;
        Ok(self.page.pop_front())
    }
}
