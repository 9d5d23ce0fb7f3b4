//! Exported rows as Apache Parquet: typed columns, a group of rows at a time. What is cut off has no footer, so that no
//! reader takes it for whole.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnPath, Type};
use rustc_hash::FxBuildHasher;

use crate::store::query::export::{Cell, Field, Kind, RowWriter};

/// Rows of a group: large enough for readers that share groups out among threads, small enough to be held in memory.
const GROUP_ROWS: usize = 1 << 16;

/// Bytes of different texts that end a group before it is full.
const GROUP_TEXT: usize = 8 << 20;

/// Values handed to the encoder at a time.
const CHUNK: usize = 1024;

/// A column of the group that is being filled.
enum Column {
    Integers(Values<i64>),
    Truths(Values<bool>),
    Texts { distinct: HashMap<Box<str>, usize, FxBuildHasher>, rows: Values<usize> },
}

/// The values that are there, and for each row whether it has one.
struct Values<T> {
    values: Vec<T>,
    /// Parquet's definition levels: 1 for a value, 0 for none.
    present: Vec<i16>,
}

impl<T> Values<T> {
    fn new() -> Self {
        Self { values: Vec::new(), present: Vec::new() }
    }

    fn push(&mut self, value: Option<T>) {
        self.present.push(i16::from(value.is_some()));
        self.values.extend(value);
    }

    fn clear(&mut self) {
        self.values.clear();
        self.present.clear();
    }
}

impl Column {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Integer | Kind::Time => Self::Integers(Values::new()),
            Kind::Truth => Self::Truths(Values::new()),
            Kind::Text => Self::Texts { distinct: HashMap::with_hasher(FxBuildHasher), rows: Values::new() },
        }
    }

    /// Returns the bytes of text that were not in the group before.
    fn push(&mut self, field: &Field, cell: Cell<'_>) -> io::Result<usize> {
        match (self, cell) {
            (Self::Integers(values), Cell::Integer(number) | Cell::Time(number)) => values.push(Some(number)),
            (Self::Integers(values), Cell::Null) => values.push(None),
            (Self::Truths(values), Cell::Truth(truth)) => values.push(Some(truth)),
            (Self::Truths(values), Cell::Null) => values.push(None),
            (Self::Texts { rows, .. }, Cell::Null) => rows.push(None),
            (Self::Texts { distinct, rows }, Cell::Text(text)) => {
                if let Some(index) = distinct.get(text) {
                    rows.push(Some(*index));
                } else {
                    rows.push(Some(distinct.len()));
                    distinct.insert(text.into(), distinct.len());
                    return Ok(text.len());
                }
            }
            // SQLite lets every column hold anything.
            (_, other) => {
                let message = format!("an event's {} is {other:?}, which its column cannot hold", field.name);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        Ok(0)
    }

    fn write(&mut self, writer: &mut SerializedColumnWriter<'_>) -> Result<()> {
        match self {
            Self::Integers(values) => {
                write_batch::<Int64Type>(writer, &values.values, &values.present)?;
                values.clear();
            }
            Self::Truths(values) => {
                write_batch::<BoolType>(writer, &values.values, &values.present)?;
                values.clear();
            }
            Self::Texts { distinct, rows } => {
                let mut texts = vec![ByteArray::new(); distinct.len()];
                for (text, index) in distinct.drain() {
                    texts[index] = ByteArray::from(text.into_string().into_bytes());
                }
                let mut indices = rows.values.iter();
                for present in rows.present.chunks(CHUNK) {
                    let count = present.iter().filter(|level| **level == 1).count();
                    let values: Vec<ByteArray> =
                        indices.by_ref().take(count).map(|&index| texts[index].clone()).collect();
                    write_batch::<ByteArrayType>(writer, &values, present)?;
                }
                rows.clear();
            }
        }
        Ok(())
    }
}

fn write_batch<T: DataType>(
    writer: &mut SerializedColumnWriter<'_>,
    values: &[T::T],
    present: &[i16],
) -> Result<()> {
    writer.typed::<T>().write_batch(values, Some(present), None).map(drop)
}

pub struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    /// The column that the next cell belongs to.
    next: usize,
    rows: usize,
    /// Bytes of different texts in the group.
    text: usize,
}

impl<W: Write + Send> Parquet<W> {
    pub fn new(writer: W, fields: &[&Field]) -> io::Result<Self> {
        let columns = fields.iter().map(|field| column_type(field).map(Arc::new));
        let columns = columns.collect::<Result<Vec<_>>>().map_err(plain)?;
        let schema = Type::group_type_builder("events").with_fields(columns).build().map_err(plain)?;
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("rano version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true);
        // What hardly repeats but grows in small steps.
        for field in fields.iter().filter(|field| field.kind == Kind::Time || field.name == "id") {
            let path = ColumnPath::from(field.name);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
        let writer = SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties.build()));
        Ok(Self {
            writer: writer.map_err(plain)?,
            columns: fields.iter().map(|field| Column::new(field.kind)).collect(),
            next: 0,
            rows: 0,
            text: 0,
        })
    }

    /// Writes the footer, without which the rest is nothing.
    pub fn finish(mut self) -> io::Result<()> {
        self.write_group().map_err(plain)?;
        self.writer.finish().map_err(plain)?;
        self.writer.flush()
    }

    fn write_group(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let mut writer = group.next_column()?.expect("the schema was made of the same fields");
            column.write(&mut writer)?;
            writer.close()?;
        }
        group.close()?;
        self.rows = 0;
        self.text = 0;
        Ok(())
    }
}

impl<W: Write + Send> RowWriter for Parquet<W> {
    fn cell(&mut self, field: &Field, cell: Cell<'_>) -> io::Result<()> {
        self.text += self.columns[self.next].push(field, cell)?;
        self.next += 1;
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.next = 0;
        self.rows += 1;
        if self.rows >= GROUP_ROWS || self.text >= GROUP_TEXT {
            self.write_group().map_err(plain)?;
        }
        Ok(())
    }
}

/// As <https://github.com/apache/parquet-format/blob/master/LogicalTypes.md> has it.
fn column_type(field: &Field) -> Result<Type> {
    let (physical, logical) = match field.kind {
        Kind::Integer => (Physical::INT64, None),
        Kind::Truth => (Physical::BOOLEAN, None),
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
    };
    Type::primitive_type_builder(field.name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
}

/// The error underneath, so that a closed pipe is told apart.
fn plain(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}
