-- Beside the warehouse: Prefect's own database.
CREATE DATABASE prefect;
